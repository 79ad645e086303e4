"""Banks for tests: adapters that PEFT saved, and the same users in a bank of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers

from adapterbot.bank import shared
from adapterbot.bank.base import by_name
from adapterbot.bank.codec import plain
from adapterbot.bank.manifest import Manifest, Module, VeraLayout
from adapterbot.bank.peft_read import Checkpoint, read_checkpoint
from adapterbot.bank.writer import BankWriter, create
from tests.tiny_models import save_peft

QV = ["q_proj", "v_proj"]


def load(base: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(base).eval()


def save_user(base: Path, directory: Path, config: Any, seed: int) -> Path:
    """An adapter with every trained parameter random, but for what users share."""
    torch.manual_seed(1000)  # VB-LoRA draws the bank of vectors, which all users share
    model = peft.get_peft_model(load(base), config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "vector_bank" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
            elif parameter.requires_grad:
                parameter.mul_(20.0)
    return save_peft(model, directory, scale=0.0)


def checkpoint(base: Path, directory: Path) -> Checkpoint:
    return read_checkpoint(directory, lambda names, _: by_name(base, names))


def bank_of(base: Path, path: Path, adapters: Mapping[str, Path]) -> BankWriter:
    """A bank of these users' adapters."""
    read = {user: checkpoint(base, directory) for user, directory in adapters.items()}
    first = next(iter(read.values()))
    path.mkdir(parents=True)
    kept: Any = (
        shared.store(path, first.shared)
        if first.seed is None
        else shared.generated(first.layout, first.seed)
    )
    bank = create(
        path, Manifest(name="bank", base_model=str(base), layout=first.layout, shared=kept)
    )
    for user, found in read.items():
        bank.add([user], found.row, source="peft")
    return bank


def vera_bank(
    base: Path, path: Path, users: int, *, rank: int = 8, targets: Any = None, scale: float = 0.3
) -> BankWriter:
    """A seeded VeRA bank with random users u0, u1, …"""
    from adapterbot.bank.base import modules_of

    modules: tuple[Module, ...] = modules_of(base, targets or QV)
    layout = VeraLayout(rank=rank, modules=modules)
    bank = create(
        path,
        Manifest(
            name="bank",
            base_model=str(base),
            layout=layout,
            shared=shared.generated(layout, 0),
        ),
    )
    generator = np.random.default_rng(0)
    values = generator.normal(size=(users, sum(layout.vectors))) * scale
    bank.add([f"u{index}" for index in range(users)], plain(values))
    return bank
