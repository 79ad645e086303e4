"""A bank under a small Llama on the CPU: its batches against PEFT, and against the base alone.

VeRA of rank 256 on q and v (and on all linear layers for equality), 64 users in one batch.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from adapterbot.bank.manifest import Manifest
from adapterbot.bank.writer import BankWriter, create
from bench.figures import Figure, median, processor

USERS = 64
RANK = 256
PROMPT, NEW = 8, 32
ROUNDS = 3


def llama(folder: Path) -> tuple[Any, Path]:
    """A small Llama of random weights, and where it is saved."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=128,
    )
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(folder / "base")
    return model, folder / "base"


def adapters(model: Any, targets: Any, users: int) -> Any:
    """The model with `users` random VeRA adapters of PEFT, u0, u1, …"""
    import peft
    import torch

    config = peft.VeraConfig(r=RANK, target_modules=targets, task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(model, config, adapter_name="u0")
    for index in range(1, users):
        wrapped.add_adapter(f"u{index}", config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "vera_lambda" in name:
                parameter.normal_(0.0, 0.1)
    return wrapped.eval()


def bank_of(wrapped: Any, base: Path, path: Path, users: int) -> None:
    """The same adapters in a bank of ours."""
    from adapterbot.bank import shared
    from adapterbot.bank.base import by_name
    from adapterbot.bank.peft_read import read_checkpoint

    wrapped.save_pretrained(path.parent / "peft")
    with_names = sorted((path.parent / "peft").iterdir())
    bank: BankWriter | None = None
    for directory in with_names:
        if not (directory / "adapter_config.json").exists():
            continue
        found = read_checkpoint(directory, lambda names, _: by_name(base, names))
        if bank is None:
            path.mkdir(parents=True)
            kept = shared.store(path, found.shared)
            bank = create(
                path,
                Manifest(name="bench", base_model=str(base), layout=found.layout, shared=kept),
            )
        bank.add([directory.name], found.row)
    assert bank is not None
    assert len(bank) == users
    bank.close()


def unwrapped(base: Path) -> Any:
    """The base model by itself."""
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(base).eval()


def generate(model: Any, ids: Any, **options: Any) -> Any:
    """A greedy answer of fixed length."""
    import torch

    with torch.no_grad():
        return model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            do_sample=False,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
            **options,
        )


def one_by_one(wrapped: Any, ids: Any) -> list[Any]:
    """PEFT, one user after the other."""
    answers = []
    for index in range(len(ids)):
        wrapped.set_adapter(f"u{index}")
        answers.append(generate(wrapped, ids[index : index + 1]))
    return answers


def model_figures(folder: Path, kind: str, targets: Any, *, rates: bool) -> list[Figure]:
    """Equality with PEFT, and what a mixed batch costs."""
    import torch

    from adapterbot.bank.attached import attach_bank

    # Threads that share cores with others' work measure that work.
    torch.set_num_threads(1)
    model, base = llama(folder)
    wrapped = adapters(model, targets, USERS)
    bank_of(wrapped, base, folder / "bank", USERS)
    plain_model = unwrapped(base)
    ours_model = unwrapped(base)
    ids = torch.randint(3, 2048, (USERS, PROMPT), generator=torch.Generator().manual_seed(2))
    names = [f"u{index}" for index in range(USERS)]
    setting = (
        f"Llama, 6 layers of 512, processor time of one thread; VeRA r={RANK} on {kind};"
        f" {USERS} users, {PROMPT}+{NEW} tokens"
    )
    with attach_bank(ours_model, folder / "bank"):
        ours = generate(ours_model, ids, tenants=names)
        theirs = one_by_one(wrapped, ids)
        worst = max(
            float((mine[i] - own[0]).abs().max() / own[0].abs().max())
            for i, answer in enumerate(theirs)
            for mine, own in zip(ours.logits, answer.logits, strict=True)
        )
        figures = [
            Figure(
                "bank: largest difference from PEFT, one user at a time",
                f"{setting}; logits of prefill and of every decoded token",
                f"{worst:.1e} of the largest logit",
                "target ≤ 1e-5",
                worst / 1e-5,
            )
        ]
        if not rates:
            return figures
        mixed, bare = [], []
        for _ in range(ROUNDS):
            mixed.append(processor(lambda: generate(ours_model, ids, tenants=names)))
            bare.append(processor(lambda: generate(plain_model, ids)))
        switching = processor(lambda: one_by_one(wrapped, ids))
    fast, base_alone = median(mixed), median(bare)
    tokens = USERS * NEW
    figures += [
        Figure(
            "bank: one mixed batch against PEFT switching users",
            f"{setting}; {switching / fast:.1f} × the tokens a second",
            f"{tokens / fast:.0f} tokens/s",
            f"{tokens / switching:.0f} tokens/s",
            fast / switching,
        ),
        Figure(
            "bank: one mixed batch against the base model alone",
            f"{setting}; {base_alone / fast:.2f} of the base's tokens a second",
            f"{tokens / fast:.0f} tokens/s",
            f"{tokens / base_alone:.0f} tokens/s",
            fast / base_alone,
        ),
    ]
    return figures


def figures() -> list[Figure]:
    """Both kinds of targets."""
    found: list[Figure] = []
    for kind, targets, rates in (
        ("q and v", ["q_proj", "v_proj"], True),
        ("all linear layers", "all-linear", False),
    ):
        with tempfile.TemporaryDirectory() as folder:
            found += model_figures(Path(folder), kind, targets, rates=rates)
    return found
