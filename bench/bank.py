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
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from adapterbot.bank.batch import BATCH_BYTES, Batch
from adapterbot.bank.codec import Bytes, Codec, Rows, plain
from adapterbot.bank.environment import MAP_BYTES
from adapterbot.bank.manifest import (
    Dtype,
    Generated,
    Manifest,
    Module,
    SoupLayout,
    VeraLayout,
)
from adapterbot.bank.store import BankStore
from adapterbot.bank.writer import create
from bench import bank_model
from bench.figures import Figure, median, processor, timed

DIMENSION = 128
PAYLOAD = 4 * DIMENSION
ROUNDS = 5


def manifest_of(layout: SoupLayout | VeraLayout, dtype: Dtype = "fp32") -> Manifest:
    """A bank's, whose shared tensors nobody asks for."""
    generator: Any = "soup-1" if isinstance(layout, SoupLayout) else "peft-vera-1"
    shared = Generated(generator=generator, seed=0, digest="0" * 64)
    return Manifest(name="bench", base_model="any", layout=layout, shared=shared, dtype=dtype)


@dataclass(frozen=True)
class Filling:
    """Seconds to fill a bank, and to write as many bytes otherwise."""

    adding: float
    busy: float  # of a core
    writing: float
    putting: float


def drawn(users: int, manifest: Manifest) -> tuple[list[str], Rows]:
    """Users, and their random rows."""
    draw = np.random.default_rng(0)
    values = draw.standard_normal((users, manifest.floats), dtype=np.float32)
    return [f"user_{index:07}" for index in range(users)], plain(values)


def filled(path: Path, names: list[str], rows: Rows, manifest: Manifest) -> tuple[float, float]:
    """Makes a bank; seconds, and processor seconds, to add everybody."""
    with create(path, manifest) as bank:
        os.sync()  # what was removed before
        step = max(1, BATCH_BYTES // bank.codec.row_bytes)
        parts = [slice(start, start + step) for start in range(0, len(names), step)]
        batches = (Batch(names[part], rows.at(part), "bench") for part in parts)
        began = time.process_time()
        adding = timed(lambda: bank.add_all(batches))
        return adding, time.process_time() - began


def written(file: Path, payload: Bytes) -> float:
    """Seconds to write rows to a file and have them on the disk."""
    step = max(1, (1 << 20) // payload.shape[1])

    def write() -> None:
        with file.open("wb", buffering=0) as stream:
            for start in range(0, len(payload), step):
                stream.write(payload[start : start + step].data)
            os.fsync(stream.fileno())

    os.sync()
    seconds = timed(write)
    file.unlink()
    return seconds


def put(file: Path, names: list[str], payload: Bytes) -> float:
    """Seconds to put the same keys and bytes, in the same transactions, into LMDB."""
    step = max(1, BATCH_BYTES // payload.shape[1])
    keys, record = [name.encode() for name in names], bytes(32)

    def write() -> None:
        for start in range(0, len(keys), step):
            some = slice(start, start + step)
            with env.begin(write=True) as txn:
                numbers = (index.to_bytes(4, "big") for index in range(start, len(keys)))
                values = (row.data for row in payload[some])
                txn.cursor(db=rows).putmulti(zip(numbers, values, strict=False))
                txn.cursor(db=users).putmulti([(key, record) for key in keys[some]])

    with lmdb.open(str(file), subdir=False, map_size=MAP_BYTES, max_dbs=2, lock=False) as env:
        rows, users = env.open_db(b"rows"), env.open_db(b"users")
        os.sync()
        seconds = timed(write)
    file.unlink()
    return seconds


def bulk_add(folder: Path, setting: str, users: int, manifest: Manifest) -> list[Figure]:
    """Adding, bare writing and bare putting in turn, a new file each time; the round with the
    middle ratio to each of the two."""
    names, rows = drawn(users, manifest)
    payload = Codec(manifest).encode(rows)
    rounds = []
    for number in range(ROUNDS):
        adding, busy = filled(folder / f"bulk{number}", names, rows, manifest)
        shutil.rmtree(folder / f"bulk{number}")
        bare, engine = written(folder / "raw", payload), put(folder / "lmdb", names, payload)
        rounds.append(Filling(adding, busy, bare, engine))
    size = payload.nbytes / 1e6

    def figure(bare: Callable[[Filling], float], what: str) -> Figure:
        middle = sorted(rounds, key=lambda found: found.adding / bare(found))[ROUNDS // 2]
        return Figure(
            name="bank: bulk add, in transactions and with a digest for each row",
            setting=f"{setting}, {size:.0f} MB; {middle.busy:.2f} s of a core",
            ours=f"{middle.adding:.2f} s",
            other=f"{bare(middle):.2f} s {what}",
            ratio=middle.adding / bare(middle),
        )

    return [
        figure(lambda found: found.writing, "to write and sync the bare bytes"),
        figure(lambda found: found.putting, "to put the same keys and bytes into bare LMDB"),
    ]


def opening(path: Path) -> float:
    """Seconds to open a bank, as a median."""
    return median(timed(lambda: BankStore(path).close()) for _ in range(15))


def store_figures(folder: Path) -> list[Figure]:
    """100,000 and a million users."""
    figures = []
    path = folder / "100k"
    small = manifest_of(SoupLayout(size=DIMENSION))
    filled(path, *drawn(100_000, small), small)
    seconds = opening(path)
    figures.append(target("open", "100,000 users × 128 fp32", seconds * 1e3, 5, "ms"))
    with BankStore(path) as bank:
        names = list(bank.users())
        draw = random.Random(0)
        single = [[draw.choice(names)] for _ in range(3000)]
        rows = median(timed(partial(bank.gather, user)) for user in single)
        several = [draw.sample(names, 256) for _ in range(60)]
        gathers = median(timed(partial(bank.gather, users)) for users in several)
        size = bank.file_bytes
    figures += [
        target("a random row", "of 100,000, decoded", rows * 1e6, 10, "µs"),
        target("gather", "256 random rows of 100,000, decoded", gathers * 1e3, 2, "ms"),
        target("bytes on disk", "100,000 users", size / (100_000 * PAYLOAD), 1.25, "× payload"),
        *bulk_add(folder, "100,000 users × 128 fp32", 100_000, small),
        *bulk_add(
            folder,
            "744 users × 352 KiB (Llama-3-8B, q and v, r=256, fp16)",
            744,
            manifest_of(llama_3_8b(), "fp16"),
        ),
    ]
    filled(folder / "1m", *drawn(1_000_000, small), small)
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
    ten = manifest_of(SoupLayout(size=DIMENSION))
    filled(path, *drawn(10_000, ten), ten)
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
