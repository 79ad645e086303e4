"""A cache is fast, safe and forgetful: never wrong, never fatal."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterbot.eval.cache import CachedScore, CacheKey, ScoreCache
from adapterbot.records import SampleScore

KEY = CacheKey(
    base="b" * 64, adapter="a" * 64, task="t" * 64, settings="{}", versions="{}", algorithm=1
)


def score(sample: str, value: float | None = 0.5) -> CachedScore:
    missing = None if value is not None else "no answer"
    return CachedScore(
        SampleScore(sample_id=sample, score=value, missing=missing, output=f"said {sample} ü\n"),
        (1, 2, 3),
    )


def test_what_was_stored_is_found_again(tmp_path: Path) -> None:
    with ScoreCache(tmp_path) as cache:
        assert cache.load(KEY) == {}
        cache.store(KEY, [score("x"), score("y", None)])
        cache.store(KEY, [score("x", 0.25)])
        want = {"x": score("x", 0.25), "y": score("y", None)}
        assert cache.load(KEY) == want
        beside = {file.name for file in tmp_path.iterdir()} - {"scores.sqlite"}
        assert beside <= {"scores.sqlite-journal"}, "memory is shared by one machine's jobs only"
    with ScoreCache(tmp_path) as cache:
        assert cache.load(KEY) == want


TEXT = st.text(min_size=0, max_size=8)
KEYS = st.builds(
    CacheKey,
    base=TEXT,
    adapter=TEXT,
    task=TEXT,
    settings=TEXT,
    versions=TEXT,
    algorithm=st.integers(0, 3),
)


@settings(max_examples=200)
@given(first=KEYS, second=KEYS)
def test_two_keys_share_scores_only_when_they_are_equal(first: CacheKey, second: CacheKey) -> None:
    assert (first.digest == second.digest) == (first == second)


@settings(max_examples=60)
@given(key=KEYS, data=st.data())
def test_changing_any_one_part_misses(
    key: CacheKey, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    field = data.draw(st.sampled_from([f.name for f in dataclasses.fields(CacheKey)]))
    value: Any = data.draw(st.integers(4, 9) if field == "algorithm" else TEXT)
    other = dataclasses.replace(key, **{field: value})
    with ScoreCache(tmp_path_factory.mktemp("cache")) as cache:
        cache.store(key, [score("x")])
        assert cache.load(other) == (cache.load(key) if other == key else {})


def test_parts_cannot_run_into_each_other() -> None:
    moved = dataclasses.replace(KEY, base="b" * 64 + "a", adapter="a" * 63)
    swapped = dataclasses.replace(KEY, base=KEY.adapter, adapter=KEY.base)
    assert len({KEY.digest, moved.digest, swapped.digest}) == 3


def rows(tmp_path: Path, statement: str, *values: object) -> None:
    database = sqlite3.connect(tmp_path / "scores.sqlite")
    with database:
        database.execute(statement, values)
    database.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE scores SET content = replace(content, '0.5', '0.9')",
        "UPDATE scores SET content = '{}'",
        "UPDATE scores SET content = NULL",
        "UPDATE scores SET check_sum = 'x'",
        "UPDATE scores SET sample = 'z'",
    ],
)
def test_a_row_that_was_touched_is_not_believed(statement: str, tmp_path: Path) -> None:
    with ScoreCache(tmp_path) as cache:
        cache.store(KEY, [score("x")])
    rows(tmp_path, statement)
    with ScoreCache(tmp_path) as cache:
        assert cache.load(KEY) == {}
        cache.store(KEY, [score("x")])
        assert cache.load(KEY)["x"] == score("x")


def test_a_row_moved_under_another_adapter_is_not_believed(tmp_path: Path) -> None:
    other = dataclasses.replace(KEY, adapter="c" * 64)
    with ScoreCache(tmp_path) as cache:
        cache.store(KEY, [score("x")])
    rows(tmp_path, "UPDATE scores SET key = ?", other.digest)
    with ScoreCache(tmp_path) as cache:
        assert cache.load(other) == {}


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100, os.urandom(5000)])
def test_a_damaged_file_is_begun_again(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "scores.sqlite").write_bytes(content)
    with ScoreCache(tmp_path) as cache:
        cache.store(KEY, [score("x")])
        assert cache.load(KEY)["x"] == score("x")


def test_damage_inside_a_good_file_is_begun_again(tmp_path: Path) -> None:
    with ScoreCache(tmp_path) as cache:
        cache.store(KEY, [score(f"s{i}") for i in range(500)])
    file = tmp_path / "scores.sqlite"
    content = bytearray(file.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    file.write_bytes(content)
    with ScoreCache(tmp_path) as cache:
        found = cache.load(KEY)
        assert all(found[name] == score(name) for name in found)
        cache.store(KEY, [score("x")])
        assert cache.load(KEY)["x"] == score("x")


def test_another_schema_is_put_aside(tmp_path: Path) -> None:
    rows(tmp_path, "PRAGMA user_version = 99")
    with ScoreCache(tmp_path) as cache:
        cache.store(KEY, [score("x")])
        assert "x" in cache.load(KEY)
    assert (tmp_path / "scores.sqlite.damaged").exists()


def test_no_place_to_keep_anything(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with ScoreCache(tmp_path / "file" / "below") as cache:
        cache.store(KEY, [score("x")])
        assert cache.load(KEY)["x"] == score("x")


def test_a_locked_cache_is_gone_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapterbot.eval.cache._WAIT_SECONDS", 0.05)
    with ScoreCache(tmp_path) as cache:
        cache.store(KEY, [score("x")])
        other = sqlite3.connect(tmp_path / "scores.sqlite", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        cache.store(KEY, [score("y")])
        other.execute("ROLLBACK")
        other.close()
        assert set(cache.load(KEY)) == {"x"}


def test_a_full_disk_says_nothing_against_what_was_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ScoreCache(tmp_path) as cache:
        cache.store(KEY, [score("x")])
        (pages,) = cache._database.execute("PRAGMA page_count").fetchone()
        cache._database.execute(f"PRAGMA max_page_count = {pages}")
        for _ in range(3):  # a batch each, whose lines would be all that a log shows
            cache.store(KEY, [score(f"s{i}") for i in range(1000)])
        assert set(cache.load(KEY)) == {"x"}
    assert len(caplog.records) == 1
    assert not list(tmp_path.glob("*.damaged"))


def test_a_cache_that_another_job_writes_to_is_not_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapterbot.eval.cache._WAIT_SECONDS", 0.05)
    with ScoreCache(tmp_path) as cache:
        cache.store(KEY, [score("x")])
        cache._database.execute("BEGIN IMMEDIATE")
        with ScoreCache(tmp_path) as other:
            assert set(other.load(KEY)) == {"x"}
        cache._database.execute("ROLLBACK")
    assert not list(tmp_path.glob("*.damaged"))


def test_two_jobs_and_a_killed_one(tmp_path: Path) -> None:
    """Three processes write at once; one is killed in the middle; nothing is lost or torn."""
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from adapterbot.eval.cache import CacheKey, CachedScore, ScoreCache
        from adapterbot.records import SampleScore
        directory, name, count = sys.argv[1:]
        key = CacheKey("b" * 64, "a" * 64, "t" * 64, "{}", "{}", 1)
        with ScoreCache(Path(directory)) as cache:
            for i in range(int(count)):
                sample = SampleScore(sample_id=f"{name}{i}", score=0.5, output="x" * 1000)
                cache.store(key, [CachedScore(sample)])
                print(i, flush=True)
        """
    )
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), name, count],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, count in (("one", "60"), ("two", "60"), ("three", "100000"))
    ]
    killed = jobs[2]
    assert killed.stdout
    done = 0
    for line in killed.stdout:
        done = int(line) + 1
        if done >= 20:
            killed.kill()
            break
    for job in jobs:
        job.communicate(timeout=60)
    assert [job.returncode for job in jobs[:2]] == [0, 0]
    with ScoreCache(tmp_path) as cache:
        found = cache.load(KEY)
    assert {f"{name}{i}" for name in ("one", "two") for i in range(60)} <= set(found)
    assert {f"three{i}" for i in range(done)} <= set(found)
