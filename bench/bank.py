"""The vector bank: its store against JSON and its own targets, and its batches against PEFT.

The store holds vectors of 128 numbers in fp32. Under a model: a small Llama on the CPU, VeRA of
rank 256 on q and v (and on all linear layers for equality), 64 users in one batch.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from adapterbot.bank.codec import Codec, plain
from adapterbot.bank.manifest import (
    Dtype,
    Generated,
    Manifest,
    Module,
    SoupLayout,
    VeraLayout,
)
from adapterbot.bank.store import BankStore
from adapterbot.bank.writer import BankWriter, create
from bench.figures import Figure, median

DIMENSION = 128
PAYLOAD = 4 * DIMENSION
BATCH_BYTES = 32 << 20  # of a transaction
USERS = 64
RANK = 256
PROMPT, NEW = 8, 32
ROUNDS = 3


def timed(run: Callable[[], Any]) -> float:
    """Seconds."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def manifest_of(layout: SoupLayout | VeraLayout, dtype: Dtype = "fp32") -> Manifest:
    """A bank's, whose shared tensors nobody asks for."""
    generator: Any = "soup-1" if isinstance(layout, SoupLayout) else "peft-vera-1"
    shared = Generated(generator=generator, seed=0, digest="0" * 64)
    return Manifest(name="bench", base_model="any", layout=layout, shared=shared, dtype=dtype)


def filled(path: Path, users: int, manifest: Manifest) -> tuple[float, float]:
    """Makes a bank of random vectors; seconds to add them, and to write as many bytes to a file."""
    draw = np.random.default_rng(0)
    values = draw.standard_normal((users, manifest.floats), dtype=np.float32)
    names = [f"user_{index:07}" for index in range(users)]

    def add(bank: BankWriter) -> None:
        batch = BATCH_BYTES // bank.codec.row_bytes
        for start in range(0, users, batch):
            part = slice(start, start + batch)
            bank.add(names[part], plain(values[part]), source="bench")

    with create(path, manifest) as bank:
        adding = timed(lambda: add(bank))
        payload = bank.codec.encode(plain(values)).tobytes()

    def write() -> None:
        with (path / "raw").open("wb") as stream:
            stream.write(payload)
            os.fsync(stream.fileno())

    writing = timed(write)
    (path / "raw").unlink()
    return adding, writing


def bulk_add(folder: Path, setting: str, users: int, manifest: Manifest) -> Figure:
    """Adding and bare writing in turn, a new file each time; the round with the middle ratio."""
    rounds = []
    for number in range(ROUNDS):
        rounds.append(filled(folder / f"bulk{number}", users, manifest))
        shutil.rmtree(folder / f"bulk{number}")
    adding, writing = sorted(rounds, key=lambda pair: pair[0] / pair[1])[ROUNDS // 2]
    size = users * Codec(manifest).row_bytes / 1e6
    return Figure(
        name="bank: bulk add, in transactions and with a digest for each row",
        setting=f"{setting}, {size:.0f} MB; {size / adding:.0f} MB/s",
        ours=f"{adding:.2f} s",
        other=f"{writing:.2f} s to write and sync the bare bytes",
        ratio=adding / writing,
    )


def opening(path: Path) -> float:
    """Seconds to open a bank, as a median."""
    return median(timed(lambda: BankStore(path).close()) for _ in range(15))


def store_figures(folder: Path) -> list[Figure]:
    """100,000 and a million users."""
    figures = []
    path = folder / "100k"
    small = manifest_of(SoupLayout(size=DIMENSION))
    filled(path, 100_000, small)
    seconds = opening(path)
    figures.append(target("open", "100,000 users × 128 fp32", seconds * 1e3, 5, "ms"))
    with BankStore(path) as bank:
        names = list(bank.users())
        draw = random.Random(0)
        rows = median(timed(lambda: bank.gather([draw.choice(names)])) for _ in range(3000))
        several = [draw.sample(names, 256) for _ in range(60)]
        gathers = median(timed(partial(bank.gather, users)) for users in several)
        size = (path / bank.manifest.rows).stat().st_size
    figures += [
        target("a random row", "of 100,000, decoded", rows * 1e6, 10, "µs"),
        target("gather", "256 random rows of 100,000, decoded", gathers * 1e3, 2, "ms"),
        target("bytes on disk", "100,000 users", size / (100_000 * PAYLOAD), 1.25, "× payload"),
        bulk_add(folder, "100,000 users × 128 fp32", 100_000, small),
        bulk_add(
            folder,
            "744 users × 352 KiB (Llama-3-8B, q and v, r=256, fp16)",
            744,
            manifest_of(llama_3_8b(), "fp16"),
        ),
    ]
    filled(folder / "1m", 1_000_000, small)
    figures.append(
        target("open", "1,000,000 users × 128 fp32", opening(folder / "1m") * 1e3, 5, "ms")
    )
    return [*figures, json_figure(folder)]


def llama_3_8b() -> VeraLayout:
    """VeRA of rank 256 on q and v of Llama-3-8B."""
    modules = tuple(
        Module(name=f"model.layers.{layer}.self_attn.{name}", inputs=4096, outputs=outputs)
        for layer in range(32)
        for name, outputs in (("q_proj", 4096), ("v_proj", 1024))
    )
    return VeraLayout(rank=256, modules=modules)


def target(name: str, setting: str, value: float, most: float, unit: str) -> Figure:
    """A figure against what was promised."""
    return Figure(
        f"bank: {name}", setting, f"{value:.3g} {unit}", f"target ≤ {most:g} {unit}", value / most
    )


def json_figure(folder: Path) -> Figure:
    """10,000 users: our bank opened, and Soup's JSON parsed (its own reader refuses that many)."""
    path = folder / "10k"
    filled(path, 10_000, manifest_of(SoupLayout(size=DIMENSION)))
    with BankStore(path) as bank:
        names = list(bank.users())
        rows = bank.gather(names).values.tolist()
    entries = [{"user_id": u, "scaling": row} for u, row in zip(names, rows, strict=True)]
    document = folder / "bank.json"
    document.write_text(json.dumps({"entries": entries}))
    parsing = median(timed(lambda: json.loads(document.read_bytes())) for _ in range(3))
    ours = opening(path)
    return Figure(
        "bank: open against a JSON bank",
        f"10,000 users × 128, {document.stat().st_size / 1e6:.0f} MB; {parsing / ours:.0f} ×",
        f"{ours * 1e3:.2f} ms",
        f"{parsing * 1e3:.0f} ms to parse",
        ours / parsing,
    )


# ---------------------------------------------------------------- under a model


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
        found = read_checkpoint(directory, lambda names: by_name(base, names))
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

    from adapterbot.bank.vera import attach_bank

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
        f"Llama, 6 layers of 512, one thread; VeRA r={RANK} on {kind}; {USERS} users,"
        f" {PROMPT}+{NEW} tokens"
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
            mixed.append(timed(lambda: generate(ours_model, ids, tenants=names)))
            bare.append(timed(lambda: generate(plain_model, ids)))
        switching = timed(lambda: one_by_one(wrapped, ids))
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


def measure() -> list[Figure]:
    """All figures."""
    figures: list[Figure] = []
    for kind, targets, rates in (
        ("q and v", ["q_proj", "v_proj"], True),
        ("all linear layers", "all-linear", False),
    ):
        with tempfile.TemporaryDirectory() as folder:
            figures += model_figures(Path(folder), kind, targets, rates=rates)
    with tempfile.TemporaryDirectory() as folder:
        figures += store_figures(Path(folder))
    return figures
