"""The vector bank: its store against JSON and its own targets, and its batches against PEFT.

The store holds vectors of 128 numbers in fp32; under a model it is `bank_model`'s.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import time
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
from bench import bank_model
from bench.figures import Figure, median, processor, timed

DIMENSION = 128
PAYLOAD = 4 * DIMENSION
BATCH_BYTES = 32 << 20  # of a transaction
ROUNDS = 3


def manifest_of(layout: SoupLayout | VeraLayout, dtype: Dtype = "fp32") -> Manifest:
    """A bank's, whose shared tensors nobody asks for."""
    generator: Any = "soup-1" if isinstance(layout, SoupLayout) else "peft-vera-1"
    shared = Generated(generator=generator, seed=0, digest="0" * 64)
    return Manifest(name="bench", base_model="any", layout=layout, shared=shared, dtype=dtype)


def filled(path: Path, users: int, manifest: Manifest) -> tuple[float, float, float]:
    """Makes a bank of random vectors; seconds, and processor seconds, to add them, and seconds to
    write as many bytes to a file."""
    draw = np.random.default_rng(0)
    values = draw.standard_normal((users, manifest.floats), dtype=np.float32)
    names = [f"user_{index:07}" for index in range(users)]

    def add(bank: BankWriter) -> None:
        batch = BATCH_BYTES // bank.codec.row_bytes
        for start in range(0, users, batch):
            part = slice(start, start + batch)
            bank.add(names[part], plain(values[part]), source="bench")

    with create(path, manifest) as bank:
        began = time.process_time()
        adding = timed(lambda: add(bank))
        busy = time.process_time() - began
        payload = bank.codec.encode(plain(values)).tobytes()

    def write() -> None:
        with (path / "raw").open("wb") as stream:
            stream.write(payload)
            os.fsync(stream.fileno())

    writing = timed(write)
    (path / "raw").unlink()
    return adding, busy, writing


def bulk_add(folder: Path, setting: str, users: int, manifest: Manifest) -> Figure:
    """Adding and bare writing in turn, a new file each time; the round with the middle ratio."""
    rounds = []
    for number in range(ROUNDS):
        rounds.append(filled(folder / f"bulk{number}", users, manifest))
        shutil.rmtree(folder / f"bulk{number}")
    adding, busy, writing = sorted(rounds, key=lambda found: found[0] / found[2])[ROUNDS // 2]
    size = users * Codec(manifest).row_bytes / 1e6
    return Figure(
        name="bank: bulk add, in transactions and with a digest for each row",
        setting=f"{setting}, {size:.0f} MB; {busy:.2f} s of a core, {size / busy:.0f} MB in each",
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
    parsing = median(processor(lambda: json.loads(document.read_bytes())) for _ in range(3))
    ours = opening(path)
    return Figure(
        "bank: open against a JSON bank",
        f"10,000 users × 128, {document.stat().st_size / 1e6:.0f} MB; {parsing / ours:.0f} ×",
        f"{ours * 1e3:.2f} ms",
        f"{parsing * 1e3:.0f} ms of processor time to parse",
        ours / parsing,
    )


def measure() -> list[Figure]:
    """All figures."""
    figures = bank_model.figures()
    with tempfile.TemporaryDirectory() as folder:
        figures += store_figures(Path(folder))
    return figures
