"""A bank as one file: the bytes that safetensors itself would write, and never all in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from adapterbot.bank import portable
from adapterbot.bank.manifest import Stored
from adapterbot.bank.portable import read_portable, write_portable
from adapterbot.bank.store import BankStore
from adapterbot.bank.writer import BankWriter
from adapterbot.weights.header import read_header
from tests.bank_rows import vector_rows, vectors_bank

USERS = [f'ü "{index}"' for index in range(100)]


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    with vectors_bank(tmp_path / "bank") as writer:
        writer.add(USERS, vector_rows(len(USERS)))
    return tmp_path / "bank"


@pytest.mark.parametrize("count", [0, 1, 100])
@pytest.mark.parametrize("kept", [False, True])
def test_the_file_is_to_the_byte_what_safetensors_writes(
    bank: Path, tmp_path: Path, count: int, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portable, "_AT_ONCE", 500)
    file = tmp_path / "out.safetensors"
    shared = {"B": np.ones((3, 5), np.float32), "A": np.arange(8, dtype=np.float32).reshape(2, 4)}
    with BankStore(bank) as store:
        stored = Stored(digest="1" * 64)
        options = {"kept": stored, "shared": shared} if kept else {}
        assert write_portable(store, file, USERS[:count], **options) == count
        rows = store.raw(sorted(USERS[:count], key=str.encode))
    content = file.read_bytes()
    assert content == save(load(content), metadata=dict(read_header(file).metadata))
    assert np.array_equal(load(content)["rows"], rows)
    assert len(read_portable(file).users) == count


def test_who_is_removed_while_a_bank_is_written_is_in_the_file(bank: Path, tmp_path: Path) -> None:
    """Names were of one moment, and rows of a later one: it ended with "is not in the bank"."""

    class Shared(dict[str, np.ndarray]):
        def items(self):  # which is asked for when the names are there, and no row is
            with BankWriter(bank) as writer:
                writer.remove(USERS[:50])
            return super().items()

    with BankStore(bank) as store:
        rows = store.raw(sorted(USERS, key=str.encode))
        options = {"kept": Stored(digest="1" * 64), "shared": Shared(A=np.ones((1, 1), np.float32))}
        assert write_portable(store, tmp_path / "out.safetensors", **options) == 100
        assert len(store) == 50
    assert np.array_equal(read_portable(tmp_path / "out.safetensors").raw, rows)


def test_a_bank_is_written_without_being_held(tmp_path: Path) -> None:
    """It took three times its rows in memory."""
    count, size = 16_000, 512
    with vectors_bank(tmp_path / "bank", size) as writer:
        writer.add([str(index) for index in range(count)], vector_rows(count, size))
    with BankStore(tmp_path / "bank") as store:
        tracemalloc.start()
        write_portable(store, tmp_path / "out.safetensors")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (tmp_path / "out.safetensors").stat().st_size > count * size * 4
    assert 2 * peak < count * size * 4
