"""The store: what was committed is there, what was not is not, and damage is found."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from adapterbot.bank.batch import Batch
from adapterbot.bank.codec import Codec, Rows, plain
from adapterbot.bank.manifest import Generated, Manifest, Module, SoupLayout, VbLoraLayout
from adapterbot.bank.records import row_seal, row_seals
from adapterbot.bank.store import BankStore
from adapterbot.bank.verify import verify
from adapterbot.bank.writer import BankWriter, create
from adapterbot.errors import InputError, OurFailure
from tests.bank_rows import vector_rows, vectors_bank
from tests.programs import python

ROOT = Path(__file__).resolve().parents[2]


def _said(program: str, *arguments: str) -> str:
    """What a program prints that runs in a process of its own, and ends well."""
    done = python("-c", program, *arguments, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def all_rows(path: Path) -> dict[str, list[float]]:
    with BankStore(path) as bank:
        users = list(bank.users())
        return dict(zip(users, bank.gather(users, check=True).values.tolist(), strict=True))


def test_what_is_added_is_read_back_in_any_order(tmp_path: Path) -> None:
    rows = vector_rows(100)
    names = [f"user {index:03} é" for index in range(100)]
    with vectors_bank(tmp_path / "b") as bank:
        bank.add(names, rows, source="first")
        picked = [7, 3, 3, 99, 0]
        got = bank.gather([names[index] for index in picked], check=True)
        assert np.array_equal(got.values, rows.values[picked])
        assert list(bank.users("user 09")) == names[90:]
        assert (len(bank), names[5] in bank, "nobody" in bank) == (100, True, False)
        entry = bank.entry(names[5])
        assert entry.source == "first"
        assert time.time() - 60 < entry.created <= time.time()
    assert verify(tmp_path / "b") == ()


@pytest.mark.parametrize("name", ["adapterbot", "lmdb", "numpy", "json", "sitecustomize"])
def test_attack_to_verify_imports_nothing_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with vectors_bank(tmp_path / "b") as bank:
        bank.add(["a"], vector_rows(1))
    (tmp_path / f"{name}.py").write_text("open('ran', 'w')\nraise SystemExit('[]')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert verify(tmp_path / "b") == ()
    assert not (tmp_path / "ran").exists()


def test_a_transaction_is_whole_or_absent(tmp_path: Path) -> None:
    with vectors_bank(tmp_path / "b") as bank:
        bank.add(["a"], vector_rows(1))
        with pytest.raises(InputError, match="is in the bank already"):
            bank.add(["b", "a"], vector_rows(2))
        with pytest.raises(InputError, match="NaN"):
            bank.add(["b", "c"], plain(np.array([[0.0] * 16, [np.nan] * 16])))
        with pytest.raises(InputError, match="named twice"):
            bank.add(["b", "b"], vector_rows(2))
        with pytest.raises(InputError, match="nobody"):
            bank.remove(["a", "nobody"])
        assert list(bank.users()) == ["a"]
    assert verify(tmp_path / "b") == ()


@pytest.mark.parametrize("bad", ["named twice", "NaN", "in the bank already", "user's name"])
def test_a_batch_that_is_no_good_leaves_those_before_it(tmp_path: Path, bad: str) -> None:
    rows = vector_rows(40)
    first = Batch([f"a{index}" for index in range(40)], rows, "here")
    second = Batch([f"b{index}" for index in range(40)], rows, [f"s{i % 3}" for i in range(40)])
    users, values = [f"c{index}" for index in range(40)], rows.values.copy()
    if bad == "NaN":
        values[3, 3] = np.nan
    else:
        users[3] = {"named twice": "c4", "in the bank already": "a4", "user's name": "c\0"}[bad]
    with vectors_bank(tmp_path / "b") as bank:
        with pytest.raises(InputError, match=bad):
            bank.add_all([first, second, Batch(users, plain(values)), Batch(["d"], rows.at([0]))])
        assert list(bank.users()) == sorted([*first.users, *second.users])
        assert np.array_equal(bank.gather(first.users, check=True).values, rows.values)
        assert [bank.entry(f"b{index}").source for index in range(4)] == ["s0", "s1", "s2", "s0"]
        assert bank.entry("a7").source == "here"
    assert verify(tmp_path / "b") == ()


@pytest.mark.parametrize("name", ["", "a\0b", "é" * 241, "\ud800"])
def test_a_name_that_is_no_key_is_refused(tmp_path: Path, name: str) -> None:
    with vectors_bank(tmp_path / "b") as bank, pytest.raises(InputError, match="user's name"):
        bank.add([name], vector_rows(1))


class StoreMachine(RuleBasedStateMachine):
    """Any sequence of changes leaves what a dictionary would hold, and nothing to verify."""

    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, list[float]] = {}
        self.count = 0

    @initialize()
    def start(self) -> None:
        self.path = Path(tempfile.mkdtemp(dir=self.folder)) / "bank"
        self.bank: BankWriter = vectors_bank(self.path)

    @rule(numbers=st.sets(st.integers(0, 60), min_size=1, max_size=40))
    def put(self, numbers: set[int]) -> None:
        self.count += 1
        names = [f"u{number}" for number in sorted(numbers, key=lambda n: (n * 7) % 61)]
        rows = vector_rows(len(names), seed=self.count)
        self.bank.add(names, rows, replace=True)
        self.held.update(zip(names, rows.values.tolist(), strict=True))

    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        if self.held:
            gone = data.draw(st.sets(st.sampled_from(sorted(self.held)), min_size=1))
            self.bank.remove(sorted(gone))
            for name in gone:
                del self.held[name]

    @rule()
    def compact(self) -> None:
        self.bank.compact()

    @invariant()
    def holds_what_was_put(self) -> None:
        users = list(self.bank.users())
        assert users == sorted(self.held)
        assert len(self.bank) == len(users)
        got = self.bank.gather(users, check=True).values.tolist()
        assert dict(zip(users, got, strict=True)) == self.held

    def teardown(self) -> None:
        self.bank.close()
        assert verify(self.path) == ()


def test_any_history_equals_a_dictionary(tmp_path: Path) -> None:
    StoreMachine.folder = tmp_path
    machine = StoreMachine.TestCase
    machine.settings = settings(
        max_examples=4,
        stateful_step_count=8,
        suppress_health_check=list(HealthCheck),
    )
    machine().runTest()


WRITER = """
import sys
from pathlib import Path
from adapterbot.bank.writer import BankWriter
from tests.bank_rows import vector_rows
with BankWriter(Path(sys.argv[1])) as bank:
    for batch in range(10_000):
        names = [f"{batch}-{index}" for index in range(50)]
        bank.add(names, vector_rows(50, seed=batch))
        if batch % 7 == 6:
            bank.remove([f"{batch - 3}-{index}" for index in range(50)])
        if batch % 5 == 4:
            bank.compact()
        print(batch, flush=True)
"""


def test_a_killed_writer_loses_nothing_committed_and_shows_nothing_else(tmp_path: Path) -> None:
    vectors_bank(tmp_path / "b").close()
    said = -1
    for wait in (0.02, 0.11):
        shutil.rmtree(tmp_path / "b")
        vectors_bank(tmp_path / "b").close()
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "b")],
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        assert writer.stdout
        first = writer.stdout.readline()
        assert first == b"0\n"
        time.sleep(wait)
        writer.send_signal(signal.SIGKILL)
        said = int((first + writer.stdout.read()).split()[-1])
        writer.wait()
        assert verify(tmp_path / "b") == ()
        held = all_rows(tmp_path / "b")
        batches = {int(name.split("-")[0]) for name in held}
        # What it said is there; beside that at most the one batch it was committing.
        assert max(batches) in (said, said + 1)
        removed = {batch - 3 for batch in range(6, said + 1, 7)}
        missing = set(range(said + 1)) - batches - removed
        assert not missing or missing == {said + 1 - 3}
        for batch in batches:
            wanted = vector_rows(50, seed=batch).values
            got = [held[f"{batch}-{index}"] for index in range(50)]
            assert np.array_equal(np.array(got, np.float32), wanted)
        with BankWriter(tmp_path / "b") as bank:
            bank.add(["after"], vector_rows(1))
    assert said > 0


def _unwritten(file: Path) -> int:
    """Pages of a file that a power cut would take: the kernel's own count (cachestat, and none
    before Linux 6.5)."""
    whole, counts = (ctypes.c_uint64 * 2)(), (ctypes.c_uint64 * 5)()
    with file.open("rb") as stream:
        ctypes.CDLL(None).syscall(451, stream.fileno(), whole, counts, 0)
    _, dirty, writing, _, _ = counts
    return dirty + writing


def test_a_change_that_has_ended_is_on_the_disk(tmp_path: Path) -> None:
    with vectors_bank(tmp_path / "b") as bank:
        batches = [Batch([name], vector_rows(1)) for name in "abc"]
        for change in (
            lambda: None,
            lambda: bank.add(["z"], vector_rows(1)),
            lambda: bank.add_all(batches),
            lambda: bank.add_all([Batch(["d"], vector_rows(1)), Batch(["z"], vector_rows(1))]),
            lambda: bank.set_scores("a", {"exact": 0.5}),
            lambda: bank.remove(["b"]),
            bank.compact,
        ):
            with contextlib.suppress(InputError):
                change()
            for name in ("rows-1.bin", "rows-1.mdb", "rows-2.bin", "rows-2.mdb"):
                if (tmp_path / "b" / name).exists():
                    assert _unwritten(tmp_path / "b" / name) == 0
        assert list(bank.users()) == ["a", "c", "d", "z"]


READER = """
import sys, time
from pathlib import Path
from adapterbot.bank.store import BankStore
from tests.bank_rows import vector_rows
bank = BankStore(Path(sys.argv[1]))
print("ready", flush=True)
seen = 0
while seen < 12:
    users = list(bank.users())
    batches = {}
    for user in users:
        batches.setdefault(user.split("-")[0], []).append(user)
    for batch, names in batches.items():
        if len(names) != 20:
            sys.exit(f"half a transaction: {batch}")
    if users:
        last = max(batches, key=int)
        if last != "0":
            got = bank.gather([f"{last}-{index}" for index in range(20)], check=True)
            if (got.values != vector_rows(20, seed=int(last)).values).any():
                sys.exit("other rows")
        seen = int(last)
"""


def test_readers_see_whole_transactions_while_one_writes_and_compacts(tmp_path: Path) -> None:
    with vectors_bank(tmp_path / "b") as bank:
        readers = [
            subprocess.Popen(
                [sys.executable, "-c", READER, str(tmp_path / "b")],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=ROOT,
            )
            for _ in range(2)
        ]
        for reader in readers:
            assert reader.stdout
            assert reader.stdout.readline() == b"ready\n"
        for batch in range(13):
            bank.add([f"{batch}-{i}" for i in range(20)], vector_rows(20, seed=batch))
            if batch % 4 == 3:
                bank.compact()
            time.sleep(0.01)
        for reader in readers:
            _, error = reader.communicate(timeout=60)
            assert reader.returncode == 0, error.decode()


def test_threads_of_one_store_read_on_while_it_is_compacted(tmp_path: Path) -> None:
    """Handles of the old file are no good in the new one, and whoever reads it keeps it open."""
    with vectors_bank(tmp_path / "b") as bank, BankStore(tmp_path / "b") as store:
        users = [f"u{i}" for i in range(20)]
        bank.add(users, vector_rows(20))
        want = store.gather(users).values.copy()
        whole = store.users()
        assert next(whole) == "u0"
        stop, wrong = threading.Event(), []

        def read() -> None:
            while not stop.is_set():
                try:
                    if not np.array_equal(store.gather(users, check=True).values, want):
                        wrong.append("other rows")
                except Exception as error:  # noqa: BLE001 whatever it is, it is shown
                    wrong.append(repr(error))

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        for _ in range(40):
            bank.compact()
        stop.set()
        for reader in readers:
            reader.join()
        assert not wrong, wrong[:3]
        assert ["u0", *whole] == sorted(users), "a walk ends in the file that it began in"
        assert not store._left


def test_a_writer_that_waited_while_another_compacted_writes_into_the_new_file(
    tmp_path: Path,
) -> None:
    with vectors_bank(tmp_path / "b") as bank:
        bank.add(["a", "b"], vector_rows(2))
        with BankWriter(tmp_path / "b") as other:
            bank.remove(["a"])
            bank.compact()
            other.add(["c"], vector_rows(1))
            assert list(other.users()) == ["b", "c"]
        assert list(bank.users()) == ["b", "c"]
    assert len(list((tmp_path / "b").glob("rows-*.mdb"))) == 1
    assert verify(tmp_path / "b") == ()


_LAST_COMMIT_FAILS = """
import resource, signal, sys
from pathlib import Path
from adapterbot.bank.writer import BankWriter
from adapterbot.errors import OurFailure
path = Path(sys.argv[1])
with BankWriter(path) as bank:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # Room for all of the new file, and for no page at the end of the old one.
    resource.setrlimit(resource.RLIMIT_FSIZE, ((path / "rows-1.mdb").stat().st_size,) * 2)
    try:
        bank.compact()
    except OurFailure as error:
        print(error)
print([file.name for file in sorted(path.iterdir())])
"""


def test_compacting_whose_last_commit_fails_moves_nobody(tmp_path: Path) -> None:
    with vectors_bank(tmp_path / "b") as bank, BankStore(tmp_path / "b") as reader:
        # A snapshot from here on keeps what later transactions free from being used again.
        with reader.reading():
            bank.add([f"{i}" for i in range(2000)], vector_rows(2000))
            bank.remove([f"{i}" for i in range(3, 2000)])
            users = list(reader.users())
            printed = _said(_LAST_COMMIT_FAILS, str(tmp_path / "b"))
        said, there = printed.splitlines()
        assert said.endswith("(free some disk space)")
        assert there == "['manifest.json', 'rows-1.bin', 'rows-1.mdb', 'rows-1.mdb-lock']"
        bank.add(["later"], vector_rows(1))
        assert list(reader.users()) == [*users, "later"], "nobody was left behind in the old file"
        assert bank.compact()[1] < 100_000
        bank.remove(["later"])
        assert list(reader.users()) == users
    assert verify(tmp_path / "b") == ()


_KILLED = """
import os, signal, sys
from pathlib import Path
from adapterbot.files import atomic
from adapterbot.bank.writer import BankWriter
def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(atomic, "write_text", killed)
BankWriter(Path(sys.argv[1])).compact()
"""


def test_compacting_that_is_killed_before_the_manifest_is_ended_by_the_next_writer(
    tmp_path: Path,
) -> None:
    with vectors_bank(tmp_path / "b") as bank, BankStore(tmp_path / "b") as reader:
        bank.add(["a", "b"], vector_rows(2))
        assert list(reader.users()) == ["a", "b"]
        done = subprocess.run(
            [sys.executable, "-c", _KILLED, str(tmp_path / "b")], check=False, cwd=ROOT
        )
        assert done.returncode == -signal.SIGKILL
        for name in ("rows-2.bin", "rows-2.mdb"):
            assert _unwritten(tmp_path / "b" / name) == 0, "before a manifest names it"
        assert reader.manifest.rows == "rows-1.mdb"
        assert list(reader.users()) == ["a", "b"]
        assert verify(tmp_path / "b") == ()
        bank.remove(["b"])
        assert list(reader.users()) == ["a"]
        assert sorted(file.name for file in (tmp_path / "b").glob("rows-*")) == [
            "rows-2.bin",
            "rows-2.mdb",
            "rows-2.mdb-lock",
        ]
    assert verify(tmp_path / "b") == ()


@pytest.mark.parametrize("gone", ["rows-2.bin", "rows-2.mdb"])
def test_a_file_that_says_it_moved_to_none_is_all_there_is(tmp_path: Path, gone: str) -> None:
    """A power cut may take the new file's entry in the folder, and leave what names it."""
    with vectors_bank(tmp_path / "b") as bank:
        bank.add(["a"], vector_rows(1))
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path / "b")], check=False, cwd=ROOT
    )
    assert done.returncode == -signal.SIGKILL
    (tmp_path / "b" / gone).unlink()
    with BankWriter(tmp_path / "b") as bank:
        bank.add(["b"], vector_rows(1))
        # Half of a new file of that name, as a compaction leaves it that is killed earlier.
        (tmp_path / "b" / "rows-2.mdb").write_bytes(b"half")
        (tmp_path / "b" / "rows-2.bin").write_bytes(b"half")
        bank.add(["c"], vector_rows(1))
        assert list(bank.users()) == ["a", "b", "c"]
        bank.compact()
        assert list(bank.users()) == ["a", "b", "c"]
    assert verify(tmp_path / "b") == ()


def test_what_killed_compactions_left_goes_with_the_next(tmp_path: Path) -> None:
    with vectors_bank(tmp_path / "b") as bank:
        bank.add(["a"], vector_rows(1))
        bank.compact()
        for number in (1, 3):
            for name in (f"rows-{number}{end}" for end in (".bin", ".mdb", ".mdb-lock")):
                (tmp_path / "b" / name).write_bytes(b"left")
        (tmp_path / "b" / "rows-1.mdb.kept").write_bytes(b"a user's own")
        bank.compact()
        assert list(bank.users()) == ["a"]
    assert {file.name for file in (tmp_path / "b").iterdir()} == {
        "manifest.json",
        "rows-1.mdb.kept",
        "rows-3.bin",
        "rows-3.mdb",
        "rows-3.mdb-lock",
    }


@pytest.mark.parametrize("end", [".bin", ".mdb"])
def test_any_flipped_bit_is_found_or_changes_nothing(tmp_path: Path, end: str) -> None:
    with vectors_bank(tmp_path / "b") as bank:
        for batch in range(3):
            names = [f"{batch}-{index}" for index in range(60)]
            bank.add(names, vector_rows(60, seed=batch), source=f"run {batch}")
        bank.set_scores("1-5", {"accuracy": 0.5})
        bank.remove(["0-1"])
        file = (bank.path / bank.manifest.rows).with_suffix(end)
    before = all_rows(tmp_path / "b")
    whole = file.read_bytes()
    used = [at for at in range(0, len(whole), 4096) if any(whole[at : at + 4096])]
    # LMDB's two meta pages, and of the others (branches, leaves, free ones) a few.
    picks = random.Random(3)
    found = 0
    for page in (*used[:2], *picks.sample(used[2:], min(6, len(used) - 2))):
        at = page + picks.randrange(min(4096, len(whole) - page))
        broken = bytearray(whole)
        broken[at] ^= 1 << picks.randrange(8)
        file.write_bytes(broken)
        for lock in (tmp_path / "b").glob("*-lock"):
            lock.unlink()
        if verify(tmp_path / "b"):
            found += 1
        else:
            assert all_rows(tmp_path / "b") == before, f"byte {at} of page {page // 4096}"
    assert found > 0
    file.write_bytes(whole)


def test_a_file_is_sound_without_the_last_pages_that_were_freed(tmp_path: Path) -> None:
    """LMDB does not write a page that one transaction takes and frees."""
    with vectors_bank(tmp_path / "b") as bank:
        users = [f"u{index:05}" for index in range(2000)]
        bank.add(users, vector_rows(2000))
        bank.remove(users[10:])
        for index in range(4):
            bank.add([f"v{index}"], vector_rows(1))
        file = bank.path / bank.manifest.rows
    before, size = all_rows(tmp_path / "b"), file.stat().st_size
    os.truncate(file, size - 3 * 4096)
    assert verify(tmp_path / "b") == ()
    assert all_rows(tmp_path / "b") == before
    assert file.stat().st_size == size


_CUT = """
import os, sys
from pathlib import Path
from adapterbot.bank.store import BankStore
from adapterbot.errors import OurFailure
setattr(os, "access", lambda place, mode: mode != os.W_OK)
try:
    with BankStore(Path(sys.argv[1])) as store:
        store.gather(list(store.users()))
except OurFailure as error:
    print(error)
"""


def test_a_file_that_was_cut_short_is_told_of_where_nobody_may_write(tmp_path: Path) -> None:
    """Such as on a disk that is mounted to be read: reading behind its end is a SIGBUS."""
    with vectors_bank(tmp_path / "b") as bank:
        bank.add([f"u{index:05}" for index in range(2000)], vector_rows(2000))
        file = bank.path / bank.manifest.rows
    os.truncate(file, file.stat().st_size // 2)
    printed = _said(_CUT, str(tmp_path / "b"))
    assert " is damaged: it has " in printed


_BLANKED = """
import sys
from pathlib import Path
from adapterbot.bank.store import BankStore
from adapterbot.bank.writer import BankWriter
from adapterbot.errors import OurFailure
bank = Path(sys.argv[1])
file = bank / sys.argv[2]
whole = file.read_bytes()
with BankStore(bank) as store:
    users = list(store.users())[::97]
    want = store.gather(users).values.tolist()
told = right = 0
for at in range(0, len(whole) - 4095, 4096):
    file.write_bytes(whole[:at] + bytes(4096) + whole[at + 4096 :])
    for lock in bank.glob("*-lock"):
        lock.unlink()
    for user, row in zip(users, want):
        try:
            with BankStore(bank) as store:
                store.entry(user)
                assert store.gather([user], check=True).values.tolist() == [row]
            with BankWriter(bank) as writer:
                writer.set_scores(user, {"a": 1.0})
            right += 1
        except OurFailure as error:
            assert " is damaged: " in str(error), error
            told += 1
        file.write_bytes(whole[:at] + bytes(4096) + whole[at + 4096 :])
print(right, told)
"""


@pytest.mark.parametrize(("name", "least"), [("rows-1.bin", 4), ("rows-1.mdb", 10)])
def test_a_page_that_is_gone_is_told_of_by_who_needs_it(
    tmp_path: Path, name: str, least: int
) -> None:
    with vectors_bank(tmp_path / "b") as bank:
        bank.add([f"u{index:05}" for index in range(500)], vector_rows(500))
    printed = _said(_BLANKED, str(tmp_path / "b"), name)
    right, told = map(int, printed.split())
    assert min(right, told) > least


def test_a_damaged_row_is_never_an_answer(tmp_path: Path) -> None:
    with vectors_bank(tmp_path / "b") as bank:
        rows = vector_rows(3)
        bank.add(["a", "b", "c"], rows)
        file = bank.path / "rows-1.bin"
    whole = file.read_bytes()
    target = rows.values[1].tobytes()
    assert whole.count(target) == 1
    file.write_bytes(whole.replace(target, b"\1" + target[1:]))
    assert any("b: the row was altered" in finding for finding in verify(tmp_path / "b"))
    with BankStore(tmp_path / "b") as bank:
        assert len(bank.gather(["a", "c"], check=True)) == 2
        with pytest.raises(OurFailure, match="row of b was altered"):
            bank.gather(["b"], check=True)


def test_attack_compacting_that_is_interrupted_takes_nobodys_new_file(tmp_path: Path) -> None:
    """What waited for the writer's lock goes over to the new file as soon as that is committed."""
    with vectors_bank(tmp_path / "b") as bank:
        bank.add(["a"], vector_rows(1))

        def go_over() -> None:
            with bank._opening:  # on which the one that compacts waits, its new file committed
                while not (tmp_path / "b/rows-2.mdb").exists():
                    time.sleep(0.001)
                with BankWriter(tmp_path / "b") as other:
                    other.add(["b"], vector_rows(1))
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                interrupted.wait(60)  # else whoever waits for the lock may be given it first

        def interrupt(*_: object) -> NoReturn:
            interrupted.set()  # here, since what follows takes that lock as well
            raise KeyboardInterrupt

        interrupted = threading.Event()
        writer = threading.Thread(target=go_over)
        before = signal.signal(signal.SIGINT, interrupt)
        try:
            writer.start()
            with pytest.raises(KeyboardInterrupt):
                bank.compact()
            writer.join()
        finally:
            signal.signal(signal.SIGINT, before)
        with BankStore(tmp_path / "b") as found:
            assert list(found.users()) == ["a", "b"]


_OF_ANOTHER = """
import os, sys
from pathlib import Path
from adapterbot.bank.store import BankStore
from adapterbot.bank.writer import BankWriter
from adapterbot.commands.bank_opened import opened_to_write
from adapterbot.errors import InputError
bank = Path(sys.argv[1])
# The other user may not read what is imported on the way.
opened_to_write(bank).close()
bank.chmod(int(sys.argv[2], 8))
for file in bank.iterdir():
    file.chmod(0o444)
if os.geteuid() == 0:
    if os.stat(bank).st_mode & 0o200:
        os.chown(bank, 65534, 65534)
    os.setuid(65534)
def refused(act):
    try:
        act()
    except InputError as error:
        print(error)
def write():
    with BankWriter(bank) as writer:
        print(list(writer.users()))
        writer.remove(["a"])
refused(lambda: opened_to_write(bank))
refused(write)
"""


@pytest.mark.parametrize("mode", ["555", "755"])
def test_a_bank_that_may_only_be_read_is_read_and_refuses_the_rest_in_a_line(mode: str) -> None:
    # pytest's own folders may not be entered by another user.
    with tempfile.TemporaryDirectory() as top:
        Path(top).chmod(0o755)
        path = Path(top, "b")
        with vectors_bank(path) as bank:
            bank.add(["a"], vector_rows(1))
        done = python("-c", _OF_ANOTHER, path, mode, check=True)
        path.chmod(0o755)
    lines = done.stdout.splitlines()
    assert (
        sum("may not be written to (make the bank's folder writable" in one for one in lines) == 2
    )
    # Where the folder takes a writer, reading takes part in its lock, which this user may not.
    assert ("['a']" in lines) == (mode == "555")


_ON_A_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from adapterbot.bank.writer import BankWriter
from adapterbot.errors import OurFailure
from tests.bank_rows import vector_rows
path = Path(sys.argv[1])
with BankWriter(path) as bank:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    def add():
        bank.add([f"{i}" for i in range(5000)], vector_rows(5000))
    size = (path / "rows-1.mdb").stat().st_size
    for act, room in ((add, size), (bank.compact, size // 2)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, size))
        try:
            act()
        except OurFailure as error:
            print(error)
    print(list(bank.users()), [file.name for file in sorted(path.iterdir())])
"""


def test_a_disk_that_takes_no_more_is_a_line_and_leaves_the_bank_as_it_was(tmp_path: Path) -> None:
    with vectors_bank(tmp_path / "b") as bank:
        bank.add(["a"], vector_rows(1))
    printed = _said(_ON_A_FULL_DISK, str(tmp_path / "b"))
    added, compacted, there = printed.splitlines()
    assert "b: could not be written: " in added
    assert "rows-2.mdb: could not be written: " in compacted
    assert added.endswith("(free some disk space)")
    assert there == "['a'] ['manifest.json', 'rows-1.bin', 'rows-1.mdb', 'rows-1.mdb-lock']"
    assert (tmp_path / "b" / "rows-1.bin").stat().st_size == 16 * 4, "of which nobody's went"
    assert verify(tmp_path / "b") == ()


def test_no_file_is_begun_where_its_lock_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMDB maps the lock and fills it: without a page for it that is a SIGBUS, and no error."""
    vectors_bank(tmp_path / "b").close()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with BankWriter(tmp_path / "b") as bank:
        with pytest.raises(OurFailure, match=r"rows-2\.mdb: could not be written: the disk has 0"):
            bank.compact()
        assert len(bank) == 0
    with pytest.raises(OurFailure, match="could not be written"):
        vectors_bank(tmp_path / "other")
    assert not (tmp_path / "other" / "manifest.json").exists()


def test_what_is_not_a_bank_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a vector bank"):
        BankStore(tmp_path)
    vectors_bank(tmp_path / "b").close()
    manifest = tmp_path / "b" / "manifest.json"
    text = json.loads(manifest.read_text())
    # A manifest must not have us open a file somewhere else.
    for rows in ("../other.mdb", "/etc/passwd", "rows-1.mdb/../x"):
        manifest.write_text(json.dumps(text | {"rows": rows}))
        with pytest.raises(InputError, match="rows"):
            BankStore(tmp_path / "b")
    for other in (2, 3, 5):
        manifest.write_text(json.dumps(text | {"format": other}))
        with pytest.raises(InputError, match="format"):
            BankStore(tmp_path / "b")
    manifest.write_text(json.dumps(text))
    (tmp_path / "b" / "rows-1.mdb").write_bytes(b"not LMDB" * 1000)
    with pytest.raises(OurFailure, match="damaged"):
        BankStore(tmp_path / "b")


def test_of_two_who_make_one_bank_at_once_one_does(tmp_path: Path) -> None:
    """Both did, each with the other's rows, or neither: the one removed what the other had made."""
    path, said = tmp_path / "b", []

    def make(size: int, keep: Callable[[Path], object]) -> None:
        layout, shared = (
            SoupLayout(size=size),
            Generated(generator="soup-1", seed=0, digest="0" * 64),
        )
        manifest = Manifest(name="n", base_model="b", layout=layout, shared=shared)
        try:
            create(path, manifest, keep).close()
            said.append(size)
        except (InputError, OurFailure) as error:
            said.append(str(error))

    second = threading.Thread(
        target=make, args=(32, lambda folder: (folder / "kept").write_text("second"))
    )

    def first(folder: Path) -> None:
        second.start()
        second.join(1)
        (folder / "kept").write_text("first")

    make(16, first)
    second.join()
    # Whoever is told may say so before the other does.
    assert sorted(said, key=str) == [
        f"{path}: exists already (name another place, or remove it)",
        16,
    ]
    assert (path / "kept").read_text() == "first"
    with BankWriter(path) as bank:
        bank.add(["a"], vector_rows(1))
    assert verify(path) == ()


def test_a_seal_is_of_the_row_and_of_all_that_is_said_of_it() -> None:
    """A row that is another user's, of another time or of another source is an altered one."""
    keys, rows = [b"ann", b"bob"], bytes(range(64))
    alike, said = row_seals(keys, 7, b"s", rows), row_seals(keys, 7, [b"s", b"s"], rows)
    assert (alike == said).all()
    assert [row.tobytes() for row in alike] == [
        row_seal(b"ann", 7, b"s", rows[:32]),
        row_seal(b"bob", 7, b"s", rows[32:]),
    ]
    row = bytearray(rows[:32])
    seen = {row_seal(b"ann", 7, b"s", bytes(row))}
    for bit in range(8 * len(row)):
        row[bit // 8] ^= 1 << bit % 8
        seen.add(row_seal(b"ann", 7, b"s", bytes(row)))
        row[bit // 8] ^= 1 << bit % 8
    for key, created, source in (
        (b"anna", 7, b"s"),
        (b"ann", 8, b"s"),
        (b"ann", 7, b"t"),
        (b"nn", 7, b"sa"),
        (b"sann", 7, b""),
    ):
        seen.add(row_seal(key, created, source, bytes(row)))
    assert len(seen) == 1 + 8 * len(row) + 5


def test_the_seals_of_keys_and_scores_go_with_their_user(tmp_path: Path) -> None:
    with vectors_bank(tmp_path / "b") as bank:
        bank.add(["a", "b"], vector_rows(2))
        bank.add_key("a", b"h" * 32)
        bank.set_scores("a", {"accuracy": 0.25})
        assert (bank.key_owner(b"h" * 32), bank.key_owner(b"i" * 32)) == ("a", None)
        assert bank.entry("a").scores == {"accuracy": 0.25}
        bank.add(["a"], vector_rows(1, seed=5), replace=True)
        assert bank.entry("a").scores == {}, "of the old row"
        bank.remove(["a"])
        assert bank.key_owner(b"h" * 32) is None
    assert verify(tmp_path / "b") == ()


# ---------------------------------------------------------------- codec


def manifest_of(dtype: str) -> Manifest:
    layout = VbLoraLayout(
        rank=2,
        length=4,
        bank_size=300,
        top_k=2,
        modules=(Module(name="m", inputs=8, outputs=12), Module(name="n", inputs=4, outputs=4)),
    )
    shared = Generated(generator="peft-vera-1", seed=0, digest="0" * 64)
    return Manifest(name="n", base_model="b", dtype=dtype, layout=layout, shared=shared)


@pytest.mark.parametrize(
    ("dtype", "relative"), [("fp32", 0.0), ("fp16", 2**-11), ("bf16", 2**-8), ("int8", 1 / 254)]
)
@given(seed=st.integers(0, 2**32 - 1), power=st.integers(-6, 4))
@settings(max_examples=20)
def test_a_row_comes_back_within_its_types_rounding(
    dtype: str, relative: float, seed: int, power: int
) -> None:
    codec = Codec(manifest_of(dtype))
    generator = np.random.default_rng(seed)
    values = (generator.normal(size=(3, codec.floats)) * 10.0**power).astype(np.float32)
    values[1] = 0.0
    choices = generator.integers(0, 300, size=(3, codec.choices))
    raw = codec.encode(Rows(values, choices))
    assert raw.shape == (3, codec.row_bytes)
    back = codec.decode(raw)
    assert np.array_equal(back.choices, choices)
    if dtype == "int8":
        # Half a level of each vector's own scale.
        for vector in np.split(np.arange(codec.floats), np.cumsum(codec._sizes)[:-1]):
            most = np.abs(values[:, vector]).max(axis=1, keepdims=True)
            error = np.abs(back.values[:, vector] - values[:, vector])
            assert (error <= most * relative * (1 + 1e-5)).all()
    else:
        floor = 2.0**-25 if dtype == "fp16" else 0.0
        assert (np.abs(back.values - values) <= np.abs(values) * relative + floor).all()


def test_bf16_rounds_as_torch_does() -> None:
    import torch

    codec = Codec(
        Manifest(
            name="n",
            base_model="b",
            dtype="bf16",
            layout=SoupLayout(size=4096),
            shared=Generated(generator="soup-1", seed=0, digest="0" * 64),
        )
    )
    bits = np.random.default_rng(0).integers(0, 2**32, 4096, dtype=np.uint32)
    values = bits.view(np.float32)
    values = np.where(np.abs(values) < 1e38, values, 1.0).astype(np.float32)  # and NaN
    got = codec.decode(codec.encode(plain(values[None]))).values[0]
    assert np.array_equal(got, torch.from_numpy(values).bfloat16().float().numpy())


def test_large_rows_are_made_in_parts_and_each_stays_its_users(tmp_path: Path) -> None:
    layout, shared = SoupLayout(size=2048), Generated(generator="soup-1", seed=0, digest="0" * 64)
    manifest = Manifest(name="n", base_model="b", dtype="fp16", layout=layout, shared=shared)
    users = [f"u{index}" for index in range(600)]
    values = np.random.default_rng(0).normal(size=(600, 2048)).astype(np.float32)
    with create(tmp_path / "bank", manifest) as bank:
        bank.add(users, plain(values), source="here")
        assert np.array_equal(bank.gather(users, check=True).values, values.astype(np.float16))
        values[599, 7] = np.nan
        with pytest.raises(InputError, match="NaN") as caught:
            bank.add([f"{user}b" for user in users], plain(values))
        assert caught.value.field == "u599b"
        assert len(bank) == 600
    assert verify(tmp_path / "bank") == ()


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_a_row_is_the_same_bytes_whether_torch_is_there_or_not(
    monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    import torch

    codec = Codec(manifest_of(dtype))
    count = 400
    bits = np.random.default_rng(0).integers(0, 2**32, (count, codec.floats), dtype=np.uint32)
    values = bits.view(np.float32)
    values[:200] = np.random.default_rng(1).normal(size=(200, codec.floats)) * 2.0**-16
    values[200:230] = np.ldexp(np.float32(2049), np.arange(30)[:, None] - 37)  # half of a last bit
    values = np.where(np.abs(values) < 65_504, values, np.float32(0.0))  # and NaN
    rows = Rows(values, np.zeros((count, codec.choices), np.int64))
    assert sys.modules["torch"] is torch
    with_torch = codec.encode(rows)
    monkeypatch.delitem(sys.modules, "torch")
    assert np.array_equal(codec.encode(rows), with_torch)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_exactly_the_numbers_that_would_become_infinity_are_refused(dtype: str) -> None:
    import torch

    codec = Codec(manifest_of(dtype))
    choices = np.zeros((2, codec.choices), np.int64)
    narrow = {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    values = np.full((2, codec.floats), torch.finfo(narrow).max, np.float32)
    while torch.from_numpy(values).to(narrow).isfinite().all():
        last = values[1, 3]
        assert np.isfinite(codec.decode(codec.encode(Rows(values, choices))).values).all()
        # A millionth more each time, in steps of fp32 where that is less than one of them.
        values[1, 3] = max(last * np.float32(1 + 1e-6), np.nextafter(last, np.float32(np.inf)))
    for sign in (1, -1):
        with pytest.raises(InputError, match=f"too large for {dtype}") as caught:
            codec.encode(Rows(sign * values, choices), ["ann", "bob"])
        assert caught.value.field == "bob"
    for broken in (np.nan, np.inf, -np.inf):
        values[1, 3] = broken
        with pytest.raises(InputError, match="holds NaN or infinity"):
            codec.encode(Rows(values, choices))


_KILLED_READING = """
import os, signal, sys
from adapterbot.bank.store import BankStore
for _ in range(130):
    child = os.fork()
    if not child:
        next(BankStore(sys.argv[1]).users())
        os.kill(os.getpid(), signal.SIGKILL)
    if os.waitpid(child, 0)[1] != signal.SIGKILL:
        sys.exit("could not read")
"""


def test_who_was_killed_while_reading_takes_no_readers_place(tmp_path: Path) -> None:
    """LMDB has 126 of them, and gives none away by itself while anybody has the bank open."""
    with vectors_bank(tmp_path / "b") as bank:
        bank.add(["a"], vector_rows(1))
        _said(_KILLED_READING, str(tmp_path / "b"))
        assert list(bank.users()) == ["a"]


def test_more_readers_than_there_are_places_for_are_told_so(tmp_path: Path) -> None:
    with vectors_bank(tmp_path / "b") as bank:
        bank.add(["a"], vector_rows(1))
        readers = [bank.users() for _ in range(126)]
        assert {next(reader) for reader in readers} == {"a"}
        for one_more in (lambda: list(bank.users()), lambda: BankStore(tmp_path / "b")):
            with pytest.raises(OurFailure, match="is being read by 126 at once"):
                one_more()
        readers.pop()
        assert list(bank.users()) == ["a"]


_WITHOUT_ADDRESSES = """
import resource, sys
from adapterbot.bank.store import BankStore
from adapterbot.errors import OurFailure
resource.setrlimit(resource.RLIMIT_AS, (1 << 34, 1 << 34))
try:
    BankStore(sys.argv[1])
except OurFailure as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="macOS keeps to no limit of addresses")
def test_a_limit_of_addresses_is_no_damage(tmp_path: Path) -> None:
    """Batch systems set one."""
    with vectors_bank(tmp_path / "b") as bank:
        bank.add(["a"], vector_rows(1))
    said = _said(_WITHOUT_ADDRESSES, str(tmp_path / "b"))
    assert "cannot be mapped: this process is denied 1 TiB of addresses (lift the" in said
