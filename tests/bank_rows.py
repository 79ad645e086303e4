"""Small banks of plain vectors, for tests that need neither torch nor PEFT."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adapterbot.bank.codec import Rows, plain
from adapterbot.bank.manifest import Generated, Manifest, SoupLayout
from adapterbot.bank.writer import BankWriter, create


def vectors_bank(path: Path, size: int = 16, dtype: str = "fp32") -> BankWriter:
    """An empty bank of one vector per user; nothing of it needs torch."""
    return create(
        path,
        Manifest(
            name="vectors",
            base_model="base",
            dtype=dtype,
            layout=SoupLayout(size=size),
            shared=Generated(generator="soup-1", seed=0, digest="0" * 64),
        ),
    )


def vector_rows(count: int, size: int = 16, seed: int = 0) -> Rows:
    return plain(np.random.default_rng(seed).normal(size=(count, size)))
