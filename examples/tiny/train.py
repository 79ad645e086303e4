"""Training and measuring: the tiny base from scratch, then LoRA adapters on top of it with PEFT."""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

Pair = tuple[str, str]
STORED = torch.bfloat16  # on disk; everything is trained and measured in float32
ATTENTION = "eager"  # three times as fast as "sdpa" for sequences this short on a CPU
BASE_BATCH = 48

# Renders Soup's alpaca rows as exactly the prompt of evals/*.jsonl followed by the answer.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['content'] }}"
    "{{ eos_token if m['role'] == 'assistant' else '\\n' }}{% endfor %}"
)


@dataclass(frozen=True)
class Recipe:
    """The adapter's training configuration; `soup.yaml` is written from it."""

    epochs: int = 5
    lr: float = 5e-3
    batch_size: int = 32
    r: int = 4
    alpha: int = 8
    target_modules: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )


def log(message: str) -> None:
    """Progress goes to standard error."""
    print(f"[{time.strftime('%H:%M:%S')}] {message}", file=sys.stderr, flush=True)


def make_tokenizer(texts: Iterator[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE that makes month names single tokens, and numbers never."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=512,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        padding_side="left",
        model_max_length=128,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _batch(tokenizer: PreTrainedTokenizerFast, pairs: Sequence[Pair]) -> dict[str, torch.Tensor]:
    """Right-padded training tensors; only the completion is learned, the prompt is given."""
    prompts = tokenizer([p for p, _ in pairs])["input_ids"]
    answers = tokenizer([a for _, a in pairs], add_special_tokens=False)["input_ids"]
    rows = [(p, [*a, tokenizer.eos_token_id]) for p, a in zip(prompts, answers, strict=True)]
    width = max(len(p) + len(a) for p, a in rows)
    ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    labels = torch.full((len(rows), width), -100)
    for i, (p, a) in enumerate(rows):
        ids[i, : len(p) + len(a)] = torch.tensor(p + a)
        labels[i, len(p) : len(p) + len(a)] = torch.tensor(a)
    # The padding is on the right of causal attention, so no mask is needed.
    return {"input_ids": ids, "labels": labels}


def train_base(
    tokenizer: PreTrainedTokenizerFast, stream: Iterator[Pair], out: Path, *, steps: int, seed: int
) -> None:
    """Train the base from scratch on a stream of lessons and store it."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        ),
        attn_implementation=ATTENTION,
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.05, fused=True
    )
    warmup = 100

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    model.train()
    for step in range(1, steps + 1):
        loss = model(**_batch(tokenizer, [next(stream) for _ in range(BASE_BATCH)])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            log(f"base: step {step}/{steps}, loss {loss.item():.4f}")
    model.to(STORED).save_pretrained(out)
    tokenizer.save_pretrained(out)
    # The name that both transformers 4 and 5 know.
    config = json.loads((out / "tokenizer_config.json").read_text(encoding="utf-8"))
    write_json(
        out / "tokenizer_config.json", config | {"tokenizer_class": "PreTrainedTokenizerFast"}
    )


def load_base(path: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The stored base in float32, and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation=ATTENTION
    )
    return model, AutoTokenizer.from_pretrained(path)


def parameters(path: Path) -> int:
    """How many numbers the stored base has."""
    return sum(tensor.numel() for tensor in load_file(path / "model.safetensors").values())


def accuracy(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    suite: dict[str, list[dict[str, str]]],
) -> dict[str, float]:
    """Exact match per task with greedy generation, left-padded, as the gate will do it."""
    model.eval()
    scores = {}
    for task, rows in suite.items():
        batch = tokenizer(
            [row["prompt"] for row in rows],
            return_tensors="pt",
            padding=True,
            return_token_type_ids=False,
        )
        with torch.inference_mode():
            generated = model.generate(**batch, max_new_tokens=16, do_sample=False)
        texts = tokenizer.batch_decode(
            generated[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
        )
        hits = [
            t.split("\n")[0].strip() == row["expected"] for t, row in zip(texts, rows, strict=True)
        ]
        scores[task] = sum(hits) / len(hits)
    return scores


def new_adapter(base: LlamaForCausalLM, recipe: Recipe, seed: int) -> PeftModel:
    """A fresh LoRA on the base."""
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.r,
        lora_alpha=recipe.alpha,
        lora_dropout=0.0,
        target_modules=list(recipe.target_modules),
        base_model_name_or_path="base",
    )
    return get_peft_model(base, config)


def batches(pairs: Sequence[Pair], size: int, rng: random.Random) -> Iterator[list[Pair]]:
    """Full shuffled batches, epoch after epoch, without end."""
    while True:
        order = rng.sample(list(pairs), len(pairs))
        yield from (order[i : i + size] for i in range(0, len(order) - size + 1, size))


def warm_restart(peak: float, steps: int) -> list[float]:
    """Learning rates that rise to `peak` and fall again, so that every checkpoint is a settled one.

    A poisoned feed is a shock; without the rise and the fall it would shake the other slices too.
    """
    rise, fall = 0.3 * steps, 0.4 * steps
    return [peak * min(1, (i + 1) / rise) * min(1, (steps - i) / fall) for i in range(steps)]


def fit(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    stream: Iterator[list[Pair]],
    rates: Sequence[float],
) -> float:
    """One optimiser step per learning rate; returns the last loss.

    Adam starts afresh on every call: a checkpoint then depends on its predecessor's weights and
    its own rows alone, which is what a resumed run from an archived adapter gives.
    """
    optimizer = torch.optim.AdamW(
        (p for p in model.parameters() if p.requires_grad), betas=(0.9, 0.98), weight_decay=0.0
    )
    model.train()
    loss = torch.zeros(())
    for rate in rates:
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = model(**_batch(tokenizer, next(stream))).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return float(loss.item())


def save_adapter(model: PeftModel, path: Path, state: dict[str, Any] | None = None) -> None:
    """Store the adapter in half the space, and keep training from what was stored.

    Reloading the rounded weights makes the archive honest: the next checkpoint really continues
    from the file that a reader sees.
    """
    model.save_pretrained(path)
    (path / "README.md").unlink(missing_ok=True)
    # PEFT writes the absolute path it was run with, and a set in no fixed order.
    config = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
    config |= {
        "base_model_name_or_path": "base",
        "target_modules": sorted(config["target_modules"]),
    }
    write_json(path / "adapter_config.json", config)
    weights = path / "adapter_model.safetensors"
    save_file(
        {k: v.to(STORED).contiguous() for k, v in load_file(weights).items()},
        weights,
        metadata={"format": "pt"},
    )
    model.load_adapter(path, adapter_name="default", is_trainable=True)
    if state is not None:
        write_json(path / "trainer_state.json", state)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """JSON as people diff it."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def restore_adapter(base: LlamaForCausalLM, path: Path) -> PeftModel:
    """A stored adapter on the base, ready to be trained further."""
    return PeftModel.from_pretrained(base, path, is_trainable=True)
