"""What a search keeps of what it did, and what it goes on with."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from adapterbot.bisect import (
    Checkpoint,
    Entry,
    Journal,
    Kind,
    Limits,
    Model,
    Observation,
    Search,
    Setting,
    heading,
    read,
    run,
)
from adapterbot.errors import InputError, OurFailure
from adapterbot.probing import chunks
from adapterbot.probing import search as searching
from adapterbot.probing.regression import Regression
from adapterbot.probing.search import SearchPlan
from adapterbot.probing.training_run import TrainingRun
from adapterbot.records import Direction, SampleScore, ScoreKind, TaskResult


def test_a_probe_is_kept_though_another_of_its_batch_fails(tmp_path) -> None:
    checkpoints = [Checkpoint(label=f"c{i}", path=f"c{i}") for i in range(9)]
    setting = Setting(by="a command", kinds=(Kind(model=Model.PASS_FAIL),))
    path = tmp_path / "journal"
    kept = threading.Event()
    begun: list[int] = []

    class Noticed(Journal):
        def add(self, entry: Entry) -> None:
            super().add(entry)
            kept.set()

    journal = Noticed(path, heading(checkpoints, setting), resume=False)

    def probe(index: int, kind: int, seen: int) -> Observation:
        begun.append(index)
        if begun[0] == index:
            kept.wait(60)
            raise OurFailure("the disk is full", fix="free some")
        return Observation(False, "fine")

    with pytest.raises(OurFailure):
        run(Search(checkpoints, setting), probe, limits=Limits(jobs=2), journal=journal)
    _, entries = read(path)
    assert [entry.index for entry in entries] == begun[1:]


@pytest.mark.parametrize(
    ("damaged", "line"),
    [
        (["{}", "{probe}"], 1),
        (["{heading}", "{probe}", "half of it"], 3),
        (["{heading}", "{probe}", "{probe of no checkpoint}", "{probe}"], 3),
    ],
)
def test_a_damaged_journal_is_refused_with_the_line(tmp_path, damaged, line) -> None:
    checkpoints = [Checkpoint(label=f"c{i}", path=f"c{i}") for i in range(3)]
    setting = Setting(by="a command", kinds=(Kind(model=Model.PASS_FAIL),))
    path = tmp_path / "journal"
    run(
        Search(checkpoints, setting),
        lambda index, _kind, _seen: Observation(index > 0, "fine"),
        limits=Limits(probes=1),
        journal=Journal(path, heading(checkpoints, setting), resume=False),
    )
    about, probe = path.read_text().splitlines()
    nowhere = json.dumps({**json.loads(probe), "index": 99})
    known = {"{heading}": about, "{probe}": probe, "{probe of no checkpoint}": nowhere}
    path.write_text("".join(known.get(text, text) + "\n" for text in damaged))
    with pytest.raises(InputError, match=rf"line {line}: is not of a journal"):
        read(path)


def result_of(scores: dict[str, float | None], task: str = "t") -> TaskResult:
    return TaskResult(
        task=task,
        scorer="exact",
        kind=ScoreKind.BINARY,
        direction=Direction.HIGHER,
        samples=tuple(
            SampleScore(sample_id=name, score=score, missing="no answer" if score is None else None)
            for name, score in scores.items()
        ),
    )


def test_a_sample_without_a_score_is_not_asked_again_by_a_search_that_goes_on(
    tmp_path, monkeypatch
) -> None:
    """Of what is asked first, three have no score: the journal counts five outcomes."""
    names = [f"s{i:02}" for i in range(32)]
    asked: list[list[str]] = []

    class Evaluator:
        def evaluate(self, tasks, adapter, *, drafts, samples):
            (ids,) = samples.values()
            asked.append(list(ids))
            return [result_of({name: None if place < 3 else 1.0 for place, name in enumerate(ids)})]

    class OfOne(Search):
        def next(self, count: int) -> list[tuple[int, int]]:
            return [(1, 0)]

    @contextmanager
    def opened(checkpoint):
        yield tmp_path

    monkeypatch.setattr(chunks, "read_adapter_dir", lambda path, *, shown: None)
    checkpoints = [Checkpoint(label=f"c{i}", path=f"c{i}") for i in range(2)]
    series = [
        chunks.Series.of("t", SimpleNamespace(name="t"), None, result_of(dict.fromkeys(names, 1.0)))
    ]
    setting = Setting(by="a suite", kinds=(series[0].kind(result_of(dict.fromkeys(names, 1.0))),))
    path = tmp_path / "journal"
    for probes in (1, 2):
        journal = Journal(path, heading(checkpoints, setting), resume=probes > 1)
        search = OfOne(checkpoints, setting)
        probe = chunks.Chunks(
            SimpleNamespace(opened=opened), checkpoints, series, (), Evaluator(), journal.entries
        )
        run(search, probe, journal=journal, limits=Limits(probes=probes))
        del journal  # another process would go on
    _, entries = read(path)
    assert [len(entry.outcome) for entry in entries] == [5, 5]
    assert not set(asked[0]) & set(asked[1])
    assert len(np.unique(asked)) == 16


def test_a_search_cut_off_before_all_of_the_bad_end_was_kept_takes_the_rest(
    tmp_path, monkeypatch
) -> None:
    """Two metrics broke; the process died between the two lines of the journal."""
    monkeypatch.setattr(searching, "what_changed", lambda *_, **__: None)
    names = [f"s{i:02}" for i in range(32)]
    good = [result_of(dict.fromkeys(names, 1.0), task) for task in ("a", "b")]
    bad = [result_of(dict.fromkeys(names, 0.0), task) for task in ("a", "b")]
    tasks = [SimpleNamespace(name=task, digest=task) for task in ("a", "b")]
    regression = Regression(tuple(tasks), {("a", None): 1.0, ("b", None): 1.0}, good, bad)
    checkpoints = [Checkpoint(label=f"c{i}", path=f"c{i}") for i in range(9)]
    path = tmp_path / "journal"

    def search(*, resume: bool) -> list[tuple[int, bool]]:
        searching.find_break(
            TrainingRun(SimpleNamespace(), checkpoints, ""),
            regression,
            SimpleNamespace(),
            first_good=True,
            last_bad=True,
            plan=SearchPlan(limits=Limits(probes=0), journal=path, resume=resume),
            say=lambda _: None,
        )
        return [(entry.kind, entry.given) for entry in read(path)[1]]

    whole = search(resume=False)
    assert whole == [(0, True), (1, True)]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    assert search(resume=True) == whole
    assert search(resume=True) == whole


def test_a_search_that_its_limit_ended_says_so_and_one_that_was_sure_does_not() -> None:
    checkpoints = [Checkpoint(label=f"c{i}", path=f"c{i}") for i in range(9)]
    setting = Setting(by="a command", kinds=(Kind(model=Model.EXACT),))

    def probe(index: int, kind: int, seen: int) -> Observation:
        return Observation(index >= 4, "looked")

    ended = "ended by its limit of time or probes"
    clock = iter(range(100)).__next__
    cut = [
        run(Search(checkpoints, setting), probe, limits=Limits(probes=3)),
        run(Search(checkpoints, setting), probe, limits=Limits(seconds=8), clock=clock),
    ]
    assert [ended in result.note for result in cut] == [True, True]
    assert all(result.probes for result in cut)
    whole = run(Search(checkpoints, setting), probe, limits=Limits(probes=30, seconds=1e6))
    assert (whole.first_broken, whole.note) == ("c4", "")
