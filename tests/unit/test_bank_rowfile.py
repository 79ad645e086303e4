"""The file of rows: what is committed never changes, and what is not is nobody's."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from adapterbot.bank.codec import plain
from adapterbot.bank.manifest import Generated, Manifest, SoupLayout
from adapterbot.bank.portable import read_portable, write_portable
from adapterbot.bank.records import SEAL, State
from adapterbot.bank.serve.presence import Presence
from adapterbot.bank.store import BankStore
from adapterbot.bank.verify import verify
from adapterbot.bank.writer import BankWriter, create
from adapterbot.errors import InputError, OurFailure
from tests.bank_rows import vector_rows, vectors_bank

ROOT = Path(__file__).resolve().parents[2]
ROW = 64  # bytes of a row of `vectors_bank`

_KILLED = """
import os, signal, sys
from pathlib import Path
from adapterbot.bank.writer import BankWriter
from tests.bank_rows import vector_rows
pwrite, fdatasync = os.pwrite, os.fdatasync
def killed():
    os.kill(os.getpid(), signal.SIGKILL)
def torn(handle, rows, at):
    pwrite(handle, rows[: len(rows) // 2 + 7], at)
    killed()
def synced(handle):
    fdatasync(handle)
    killed()
name, hook = {
    "in the middle of a row": ("pwrite", torn),
    "before the rows are on the disk": ("fdatasync", lambda _: killed()),
    "before the commit": ("fdatasync", synced),
}[sys.argv[2]]
with BankWriter(Path(sys.argv[1])) as bank:
    setattr(os, name, hook)
    bank.add(["b", "c", "d"], vector_rows(3, seed=7), replace=True)
"""


@pytest.mark.parametrize(
    "moment", ["in the middle of a row", "before the rows are on the disk", "before the commit"]
)
def test_rows_of_a_killed_transaction_are_nobodys(tmp_path: Path, moment: str) -> None:
    with vectors_bank(tmp_path / "b") as bank, BankStore(tmp_path / "b") as reader:
        rows = vector_rows(2)
        bank.add(["a", "b"], rows)
        done = subprocess.run(
            [sys.executable, "-c", _KILLED, str(tmp_path / "b"), moment], check=False, cwd=ROOT
        )
        assert done.returncode == -signal.SIGKILL
        assert (tmp_path / "b/rows-1.bin").stat().st_size > 2 * ROW
        assert list(reader.users()) == ["a", "b"]
        assert np.array_equal(reader.gather(["a", "b"], check=True).values, rows.values)
        assert verify(tmp_path / "b") == ()
        bank.add(["e"], vector_rows(1, seed=9))
        assert np.array_equal(reader.gather(["a", "b"], check=True).values, rows.values)
        assert np.array_equal(
            reader.gather(["e"], check=True).values, vector_rows(1, seed=9).values
        )
    assert verify(tmp_path / "b") == ()


def test_a_batch_that_fails_takes_back_the_rows_that_it_wrote(tmp_path: Path) -> None:
    layout, shared = SoupLayout(size=2048), Generated(generator="soup-1", seed=0, digest="0" * 64)
    manifest = Manifest(name="n", base_model="b", layout=layout, shared=shared)
    values = np.random.default_rng(0).normal(size=(600, 2048)).astype(np.float32)
    with create(tmp_path / "b", manifest) as bank:
        bank.add(["a"], plain(values[:1]))
        values[599, 7] = np.nan
        with pytest.raises(InputError, match="NaN"):
            bank.add([f"u{index}" for index in range(600)], plain(values))
        assert (tmp_path / "b/rows-1.bin").stat().st_size == bank.codec.row_bytes
        assert list(bank.users()) == ["a"]
    assert verify(tmp_path / "b") == ()


def test_an_old_state_is_read_while_rows_are_replaced_removed_and_compacted(
    tmp_path: Path,
) -> None:
    users, rows = [f"u{index:03}" for index in range(90)], vector_rows(90)
    with vectors_bank(tmp_path / "b") as bank, BankStore(tmp_path / "b") as reader:
        bank.add(users, rows)
        with reader.picked() as (names, picked):
            parts = picked(30)
            got = [next(parts)]
            bank.add(users, vector_rows(90, seed=1), replace=True)
            bank.remove(users[50:])
            got.append(next(parts))
            bank.compact()
            bank.add([f"v{index}" for index in range(90)], vector_rows(90, seed=2))
            got.append(next(parts))
            assert not [*parts]
        assert names == users
        assert np.array_equal(reader.codec.decode(np.concatenate(got)).values, rows.values)
        now = reader.gather(users[:50], check=True).values
        assert np.array_equal(now, vector_rows(90, seed=1).values[:50])
    assert verify(tmp_path / "b") == ()


def test_the_room_of_rows_that_are_gone_comes_back_with_compacting(tmp_path: Path) -> None:
    with vectors_bank(tmp_path / "b") as bank, BankStore(tmp_path / "b") as reader:
        users = [f"u{index:03}" for index in range(100)]
        for seed in range(3):
            bank.add(users, vector_rows(100, seed=seed), replace=True)
        bank.remove(users[10:])
        assert (tmp_path / "b/rows-1.bin").stat().st_size == 300 * ROW
        before, after = bank.compact()
        assert (tmp_path / "b/rows-2.bin").stat().st_size == 10 * ROW
        assert before - after >= 290 * ROW
        assert after == reader.file_bytes == bank.file_bytes
        assert np.array_equal(
            bank.gather(users[:10], check=True).values, vector_rows(100, seed=2).values[:10]
        )
    assert verify(tmp_path / "b") == ()


@pytest.mark.parametrize("left", [0, 1, 50 * ROW, 100 * ROW - 1])
def test_rows_that_were_cut_off_are_told_of_and_no_crash(tmp_path: Path, left: int) -> None:
    """Whoever has the file open already is told by the first row that is missing."""
    users, file = [f"u{index:03}" for index in range(100)], tmp_path / "b/rows-1.bin"
    with vectors_bank(tmp_path / "b") as bank:
        bank.add(users, vector_rows(100))
        os.truncate(file, left)
        with pytest.raises(OurFailure, match=r"rows-1\.bin is damaged: a row is cut off"):
            bank.gather(users)
        for change in (lambda: bank.add(["v"], vector_rows(1)), bank.compact):
            with pytest.raises(OurFailure, match=r"rows-1\.bin is damaged: "):
                change()
        assert sorted(one.name for one in (tmp_path / "b").glob("*.bin")) == ["rows-1.bin"]
        assert file.stat().st_size == left, "a longer one would look whole"
    with pytest.raises(OurFailure, match=rf"rows-1\.bin is damaged: it has {left:,} of 6,400 "):
        BankStore(tmp_path / "b")
    assert any("rows-1.bin is damaged" in finding for finding in verify(tmp_path / "b"))


def test_nothing_is_written_where_an_altered_record_says(tmp_path: Path) -> None:
    with vectors_bank(tmp_path / "b") as bank:
        bank.add(["a", "b"], vector_rows(2))
        with bank._file.shared.env.begin(write=True) as txn:
            held = txn.get(b"state", db=bank._file.shared.db["facts"])
            assert held is not None
            altered = held[:SEAL] + State(next_slot=1, users=2).packed()[SEAL:]
            txn.put(b"state", altered, db=bank._file.shared.db["facts"])
        rows = (tmp_path / "b/rows-1.bin").read_bytes()
        with pytest.raises(OurFailure, match="the record of the whole bank was altered"):
            bank.add(["c"], vector_rows(1, seed=1))
        assert (tmp_path / "b/rows-1.bin").read_bytes() == rows
    assert any("the record of the whole bank was altered" in one for one in verify(tmp_path / "b"))


_ONE_OF_TWO = """
import sys
from pathlib import Path
from adapterbot.bank.batch import Batch
from adapterbot.bank.writer import BankWriter
from tests.bank_rows import vector_rows
mine = int(sys.argv[2])
with BankWriter(Path(sys.argv[1])) as bank:
    for turn in range(20):
        users = [f"{mine}-{turn}-{index}" for index in range(40)]
        bank.add_all([Batch([user], vector_rows(40, seed=mine).at([at]))
                      for at, user in enumerate(users[:5])])
        bank.add(users[5:], vector_rows(40, seed=mine).at(slice(5, None)))
        if turn % 6 == 5:
            bank.compact()
"""


def test_two_writers_never_write_over_each_others_rows(tmp_path: Path) -> None:
    vectors_bank(tmp_path / "b").close()
    writers = [
        subprocess.Popen([sys.executable, "-c", _ONE_OF_TWO, str(tmp_path / "b"), mine], cwd=ROOT)
        for mine in "12"
    ]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    assert verify(tmp_path / "b") == ()
    with BankStore(tmp_path / "b") as store:
        assert len(store) == 2 * 20 * 40
        for mine in (1, 2):
            for turn in range(20):
                users = [f"{mine}-{turn}-{index}" for index in range(40)]
                got = store.gather(users, check=True).values
                assert np.array_equal(got, vector_rows(40, seed=mine).values)


def test_a_server_is_told_that_the_rows_were_put_in_place_of_others(tmp_path: Path) -> None:
    with vectors_bank(tmp_path / "b") as bank:
        bank.add(["a"], vector_rows(1))
        presence = Presence(bank)
        bank.compact()
        assert presence.lack() is None
        os.truncate(tmp_path / "b/rows-2.bin", ROW - 1)
        assert "it has 63 of 64 bytes" in str(presence.lack())
        os.truncate(tmp_path / "b/rows-2.bin", ROW)
        assert presence.lack() is None
        shutil.copy(tmp_path / "b/rows-2.bin", tmp_path / "copy")
        (tmp_path / "copy").replace(tmp_path / "b/rows-2.bin")
        assert "another bank was put in its place" in str(presence.lack())


class _Overtaken(BankStore):
    """Compacted by another process as soon as it was followed to where the rows lie."""

    overtake = False

    def require(self) -> None:
        super().require()
        if self.overtake:
            self.overtake = False
            with BankWriter(self.path) as bank:
                bank.compact()


def test_a_server_that_looks_while_its_bank_is_compacted_is_ready(tmp_path: Path) -> None:
    with vectors_bank(tmp_path / "b") as bank, _Overtaken(tmp_path / "b") as store:
        bank.add(["a"], vector_rows(1))
        presence = Presence(store)
        for _ in range(2):
            store.overtake = True
            assert presence.lack() is None


def test_rows_of_another_bank_are_no_answer(tmp_path: Path) -> None:
    for name, seed in (("b", 0), ("other", 1)):
        with vectors_bank(tmp_path / name) as bank:
            bank.add(["a", "b"], vector_rows(2, seed=seed))
    (tmp_path / "other/rows-1.bin").replace(tmp_path / "b/rows-1.bin")
    with BankStore(tmp_path / "b") as store, pytest.raises(OurFailure, match="row of a was alt"):
        store.gather(["a"], check=True)
    assert len(verify(tmp_path / "b")) == 2


def test_attack_rows_are_not_read_through_a_link(tmp_path: Path) -> None:
    with vectors_bank(tmp_path / "b") as bank:
        bank.add(["a"], vector_rows(1))
    rows = tmp_path / "b/rows-1.bin"
    rows.rename(tmp_path / "rows")
    for lies in (lambda: None, lambda: rows.symlink_to(tmp_path / "rows"), lambda: os.mkfifo(rows)):
        rows.unlink(missing_ok=True)
        lies()
        with pytest.raises(InputError, match="does not exist") as caught:
            BankStore(tmp_path / "b")
        assert caught.value.file == str(rows)
        assert verify(tmp_path / "b") == (f"{rows}: does not exist",)


def test_a_copy_with_holes_is_the_bank(tmp_path: Path) -> None:
    with vectors_bank(tmp_path / "b") as bank:
        users = [f"u{index:03}" for index in range(1000)]
        bank.add(users, plain(np.zeros((1000, 16), np.float32)))
        bank.add(["z"], vector_rows(1))
    subprocess.run(["cp", "-r", "--sparse=always", tmp_path / "b", tmp_path / "c"], check=True)
    assert verify(tmp_path / "c") == ()
    with BankStore(tmp_path / "c") as store:
        assert not store.gather(users, check=True).values.any()
        assert np.array_equal(store.gather(["z"], check=True).values, vector_rows(1).values)


def test_a_bank_of_format_3_says_how_it_goes_over(tmp_path: Path) -> None:
    """Its exported files are as they were, so they are read."""
    with vectors_bank(tmp_path / "b") as bank:
        bank.add(["a"], vector_rows(1))
        write_portable(bank, tmp_path / "file")
    manifest = tmp_path / "b/manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 3}))
    for use in (BankStore, BankWriter, verify):
        with pytest.raises(InputError) as caught:
            use(tmp_path / "b")
        assert str(caught.value) == (
            f"{manifest}: format: is 3, of an older adapterbot; this one reads 4 (with that one"
            " `bank export` it to a file, and with this one `bank import` the file into a new bank;"
            " scores stay behind, and API keys are made anew, by `bank key`)"
        )
    said = (tmp_path / "file").read_bytes()
    assert said.count(rb"\"format\": 4") == 1
    (tmp_path / "file").write_bytes(said.replace(rb"\"format\": 4", rb"\"format\": 3"))
    found = read_portable(tmp_path / "file")
    assert (found.users, found.manifest.format) == (("a",), 4)


def test_rows_are_written_on_a_system_that_has_neither_fdatasync_nor_fadvise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS, whose own word for the former is F_FULLFSYNC."""
    asked: list[int] = []
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    monkeypatch.delattr(os, "fdatasync", raising=False)
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda _, command: asked.append(command))
    with vectors_bank(tmp_path / "b") as bank:
        bank.add(["a"], vector_rows(1))
        bank.compact()
        assert asked == [51, 51]
        assert np.array_equal(bank.gather(["a"], check=True).values, vector_rows(1).values)
