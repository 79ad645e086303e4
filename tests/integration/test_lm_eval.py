"""Tasks of lm-eval get the scores that lm-eval gives, from the base ref's files alone."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapterbot.errors import InputError
from adapterbot.eval.cache import ScoreCache
from adapterbot.eval.engine import Engine
from adapterbot.eval.scorers import CorpusScorer, get, lm_eval_side
from adapterbot.eval.settings import EngineSettings
from adapterbot.eval.suite import Suite, load_suite, suite_files
from adapterbot.files.tree import WorkTree
from adapterbot.git.tree import GitTree
from adapterbot.records import Direction, ScoreKind, Unit
from tests import lm_eval_tasks
from tests.example import EXAMPLE, commit, git

lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed (group `test`)")

pytestmark = pytest.mark.filterwarnings("ignore")

BASE, ADAPTER = EXAMPLE / "base", EXAMPLE / "adapters" / "dates"
SUITE = """
version: 1
tasks:
  - {name: chosen, kind: lm_eval, path: lm_eval, task: dates_chosen, metric: acc_norm, slice: dots}
  - {name: whole, kind: lm_eval, path: lm_eval, task: dates_written, filter: whole}
  - {name: early, kind: lm_eval, path: lm_eval/write.yaml, task: dates_written, filter: early}
  - {name: greedy, kind: lm_eval, path: lm_eval, task: dates_weighed, metric: acc}
  - {name: nats, kind: lm_eval, path: lm_eval, task: dates_weighed, metric: perplexity, margin: 1}
  - {name: words, kind: lm_eval, path: lm_eval, task: texts, metric: word_perplexity, margin: 1}
  - {name: own, kind: lm_eval, path: lm_eval, task: dates_own, margin: 1}
  - {name: bits, kind: lm_eval, path: lm_eval, task: texts, metric: bits_per_byte, margin: 1}
  - {name: distance, kind: lm_eval, path: lm_eval, task: dates_distance, margin: 1, limit: 12}
"""
ONE = "".join(SUITE.splitlines(keepends=True)[:4])
# Each of the above as lm-eval knows it: task, filter, metric.
THEIRS = {
    "chosen": ("dates_chosen", "none", "acc_norm"),
    "whole": ("dates_written", "whole", "exact_match"),
    "early": ("dates_written", "early", "exact_match"),
    "greedy": ("dates_weighed", "none", "acc"),
    "nats": ("dates_weighed", "none", "perplexity"),
    "words": ("texts", "none", "word_perplexity"),
    "own": ("dates_own", "none", "own"),
    "bits": ("texts", "none", "bits_per_byte"),
    "distance": ("dates_distance", "none", "wrong_characters"),
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    lm_eval_tasks.write(root, 42)
    (root / "evals" / "suite.yaml").write_text(SUITE)
    git(root, "init", "-q", "-b", "main")
    commit(root, "suite")
    return root


@pytest.fixture(scope="module")
def suite(repository: Path) -> Suite:
    return load_suite(WorkTree(repository), "evals/suite.yaml")


# How lm-eval's figure of a document of a corpus metric, a log-likelihood and a size, reads as one.
CORPORA: dict[str, Callable[[float, int], float]] = {
    "nats": lambda value, _: math.exp(-value),
    "words": lambda value, size: math.exp(-value / size),
    "bits": lambda value, size: -value / size / math.log(2),
}


def reference(adapter: Path | None) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """What lm-eval itself says of our tasks, run in the repository: of each document, of all."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    peft = str(adapter) if adapter else None
    model = HFLM(str(BASE), peft=peft, device="cpu", dtype="float32", batch_size=8)
    found = lm_eval.simple_evaluate(
        model,
        tasks=sorted({task for task, _, _ in THEIRS.values()}),
        task_manager=TaskManager(include_path=lm_eval_tasks.HOME, include_defaults=False),
        bootstrap_iters=0,
    )
    samples = {
        ours: {str(row["doc_id"]): row for row in found["samples"][task] if row["filter"] == name}
        for ours, (task, name, _) in THEIRS.items()
    }
    results = {
        ours: found["results"][task][f"{metric},{name}"]
        for ours, (task, name, metric) in THEIRS.items()
    }
    return samples, results


def as_ours(task: str, theirs: Any) -> float:
    if task not in CORPORA:
        return float(theirs)
    value, size = theirs if isinstance(theirs, tuple) else (theirs, 1)
    return CORPORA[task](value, size)


def test_samples_and_scores_are_those_of_lm_eval(
    repository: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.chdir(repository)
    seen = {}
    with Engine(BASE, EngineSettings(dtype="float32", device="cpu")) as engine:
        for adapter in (None, ADAPTER):
            theirs, results = reference(adapter)
            results_of_ours = engine.evaluate(suite.tasks, adapter)
            for task, result in zip(suite.tasks, results_of_ours, strict=True):
                metric = THEIRS[task.name][2]
                ours = {sample.sample_id: sample.score for sample in result.samples}
                wanted = {
                    id_: as_ours(task.name, row[metric]) for id_, row in theirs[task.name].items()
                }
                if task.name != "distance":  # which has a limit
                    assert ours.keys() == wanted.keys()
                assert ours == pytest.approx({id_: wanted[id_] for id_ in ours}, rel=1e-4, abs=1e-4)
                if task.name in CORPORA:
                    totals = np.sum([sample.stats for sample in result.samples], axis=0)
                    scorer = get(task.scorer, task.scorer_options)
                    assert isinstance(scorer, CorpusScorer)
                    assert scorer.aggregate(totals) == pytest.approx(results[task.name], rel=1e-4)
                for sample in result.samples:
                    row = theirs[task.name][sample.sample_id]
                    assert (sample.prompt or sample.expected) == row["arguments"][0][0]
                    if task.name in ("whole", "distance"):
                        assert sample.output == row["resps"][0][0]
                seen[task.name, adapter] = sum(ours.values()) / len(ours)
    # Scores that are all the same would agree with nearly anything.
    assert len(set(seen.values())) >= 5, seen


def test_a_task_of_lm_eval_is_a_task_like_any_other(suite: Suite) -> None:
    chosen, whole, early, *_, distance = suite.tasks
    assert (chosen.kind, chosen.unit, chosen.direction) == (
        ScoreKind.BINARY,
        Unit.FRACTION,
        Direction.HIGHER,
    )
    assert (distance.kind, distance.unit, distance.direction) == (
        ScoreKind.CONTINUOUS,
        Unit.NUMBER,
        Direction.LOWER,
    )
    assert whole.generation.max_new_tokens == 14
    assert whole.generation.stop == ("\n",)
    assert {sample.slice for sample in chosen.samples} == {"0", "2"}
    assert len(distance.samples) == 12
    assert whole.digest != early.digest
    assert f"{lm_eval_tasks.HOME}/code.py" in suite.files
    assert f"{lm_eval_tasks.HOME}/dates.jsonl" in suite.files


def test_what_runs_is_what_the_base_ref_holds(repository: Path, tmp_path: Path) -> None:
    """A pull request that rewrites the task is scored by the task as it was, and runs no code."""
    head = tmp_path / "head"
    git(tmp_path, "clone", "-q", str(repository), str(head))
    (head / "evals" / "suite.yaml").write_text(ONE)
    commit(head, "one task")
    home = head / lm_eval_tasks.HOME
    ran = tmp_path / "ran"
    (home / "code.py").write_text(f"open({str(ran)!r}, 'w')\n" + lm_eval_tasks.CODE)
    (home / "dates.jsonl").write_text((home / "shots.jsonl").read_text())
    commit(head, "easier")
    base = git(head, "rev-parse", "HEAD~1")
    (trusted,) = load_suite(GitTree(head, base), "evals/suite.yaml").tasks
    with Engine(BASE, EngineSettings(dtype="float32", device="cpu")) as engine:
        (result,) = engine.evaluate([trusted], ADAPTER)
    assert len(result.samples) == 40
    assert all(sample.missing is None for sample in result.samples)
    assert not ran.exists()
    assert f"{lm_eval_tasks.HOME}/code.py" in suite_files(WorkTree(head), "evals/suite.yaml")
    assert not ran.exists()
    (changed,) = load_suite(WorkTree(head), "evals/suite.yaml").tasks
    assert ran.exists()
    assert len(changed.samples) == 2
    assert changed.digest != trusted.digest


def test_the_tasks_code_sees_no_secret_and_comes_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "s3cret")
    home = lm_eval_tasks.write(tmp_path, 4)
    told = tmp_path / "told"
    spy = f"import os\nopen({str(told)!r}, 'a').write(repr(dict(os.environ)) + os.getcwd())\n"
    (home / "code.py").write_text(spy + lm_eval_tasks.CODE)
    (tmp_path / "evals" / "suite.yaml").write_text(ONE)
    (task,) = load_suite(WorkTree(tmp_path), "evals/suite.yaml").tasks
    assert "s3cret" not in told.read_text()
    assert str(tmp_path / "evals") not in told.read_text()
    settings = EngineSettings(dtype="float32", device="cpu")
    with Engine(BASE, settings, cache=ScoreCache(tmp_path / "cache")) as engine:
        first = engine.evaluate([task], ADAPTER)
        told.unlink()
        assert engine.evaluate([task], ADAPTER) == first
    assert not told.exists()
    assert "GITHUB_TOKEN" in os.environ


def test_tasks_of_a_directory_share_a_process_and_one_that_ends_it_harms_no_other(
    tmp_path: Path,
) -> None:
    home = lm_eval_tasks.write(tmp_path, 4)
    told = tmp_path / "told"
    spy = f"import os\nopen({str(told)!r}, 'a').write(f'{{os.getpid()}} ')\n"
    ended = str(tmp_path / "ended")
    ends = (
        "def own(doc, results):\n"
        f"    if not os.path.exists({ended!r}):\n"
        f"        os.mkdir({ended!r})\n"
        "        os._exit(0)\n"
        "    return {'own': 1.0}\n"
    )
    (home / "code.py").write_text(spy + lm_eval_tasks.CODE + ends)
    names = ("name: chosen", "name: own", "name: whole", "name: distance")
    lines = [line for line in SUITE.splitlines() if any(f"{{{name}," in line for name in names)]
    text = "\n".join(["version: 1", "tasks:", *lines])
    (tmp_path / "evals" / "suite.yaml").write_text(text)
    tasks = load_suite(WorkTree(tmp_path), "evals/suite.yaml").tasks
    assert len(tasks) == 4
    assert len(set(told.read_text().split())) == 1
    told.unlink()
    with Engine(BASE, EngineSettings(dtype="float32", device="cpu")) as engine:
        found = dict(zip([t.name for t in tasks], engine.evaluate(tasks, None), strict=True))
    assert len(set(told.read_text().split())) == 2, "the one that was ended, and another"
    missing = [sample.missing for result in found.values() for sample in result.samples]
    assert sorted(missing, key=bool) == [None] * 7 + ["lm-eval ended its process"]
    assert {sample.score for sample in found["own"].samples} == {None, 1.0}


@pytest.mark.parametrize(
    ("yaml", "meant", "says"),
    [
        ("", ("dates_chosn", "acc", None), "is not there; tasks in this directory: dates_cho"),
        (
            "",
            ("dates_chosen", None, None),
            "several metrics and none is named; name one of acc, acc_norm",
        ),
        (
            "",
            ("dates_written", None, None),
            "several filters and none is named; name one of early, whole",
        ),
        ("", ("dates_chosen", "f1", None), "no metric 'f1'; name one of acc, acc_norm"),
        ("dataset_path: squad", ("t", "acc", None), "dataset_path is 'squad'"),
        (
            "dataset_kwargs: {data_files: {test: /etc/passwd}}",
            ("t", "acc", None),
            "'/etc/passwd' is no file in the task's directory",
        ),
        (
            "dataset_kwargs: {data_files: {test: 'https://example.invalid/d.json'}}",
            ("t", "acc", None),
            "is no file in the task's directory",
        ),
        (
            "include: texts.yaml\nmetric_list: [{metric: bits_per_byte, aggregation: mean}]",
            ("t", None, None),
            "metric bits_per_byte is not a mean over samples",
        ),
        (
            "include: texts.yaml\nprocess_results: !function code.distance",
            ("t", "bits_per_byte", None),
            "metric bits_per_byte is not a mean over samples",
        ),
        ("metric_list: [{metric: f1}]", ("t", None, None), "metric f1 is not a mean over samples"),
        ("metric_list: [{metric: acc_mutual_info}]", ("t", None, None), "different contexts"),
        ("repeats: 3", ("t", "acc", None), "`repeats`"),
        ("unsafe_code: true", ("t", "acc", None), "unsafe_code"),
        ("doc_to_text: '{{ said | nofilter }}'", ("t", "acc", None), "nofilter"),
        (
            "include: write.yaml\ngeneration_kwargs: {do_sample: true, temperature: 1.0}",
            ("t", None, "whole"),
            "ask for sampling",
        ),
        (
            "include: write.yaml\ngeneration_kwargs: {num_beams: 4}",
            ("t", None, "whole"),
            "generation_kwargs name num_beams",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, yaml: str, meant: tuple[str, ...], says: str
) -> None:
    import datasets

    # As in a process of its own, which would take seconds for each.
    monkeypatch.setattr(datasets, "load_dataset", datasets.load_dataset)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    text = f"include: choose.yaml\n{yaml}" if not yaml.startswith("include") else yaml
    home = lm_eval_tasks.write(tmp_path, 4, t=f"{text}\ntask: t\n")
    name, *which = meant
    with pytest.raises(Exception, match=re.escape(says)):
        list(lm_eval_side.show(*_loaded(home, name, which)))


def _loaded(home: Path, name: str, which: list[str]) -> tuple[Any, str, str]:
    task = lm_eval_side.load_task(home, name)
    return task, *lm_eval_side.chosen(task, *which)


def test_a_refusal_names_the_task_and_its_directory(tmp_path: Path) -> None:
    lm_eval_tasks.write(tmp_path, 4)
    (tmp_path / "evals" / "suite.yaml").write_text(ONE.replace("dates_chosen", "dates_chosn"))
    with pytest.raises(InputError) as refused:
        load_suite(WorkTree(tmp_path), "evals/suite.yaml")
    assert str(refused.value).startswith(
        "evals/lm_eval: lm-eval's task 'dates_chosn' cannot be evaluated: it is not there; "
        "tasks in this directory: dates_chosen, dates_distance, dates_own, "
        "dates_weighed, dates_written, texts"
    )


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("kind: lm_eval, path: lm_eval", "needs its `path` and its `task`"),
        ("kind: lm_eval, path: p, task: t, scorer: exact", "`scorer` is lm-eval's to say"),
        ("data: d.jsonl, scorer: exact, filter: f", "`filter` is for tasks with `kind: lm_eval`"),
        ("data: d.jsonl, scorer: lm_eval_text", "comes with a task's `kind`"),
        ("kind: lm_eval, path: ../.., task: t", ".."),
        ("kind: lm_eval, path: nowhere, task: t", "evals/nowhere"),
    ],
)
def test_an_entry_of_another_shape_is_refused(tmp_path: Path, entry: str, says: str) -> None:
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / "suite.yaml").write_text(f"version: 1\ntasks: [{{name: x, {entry}}}]\n")
    with pytest.raises(InputError) as refused:
        load_suite(WorkTree(tmp_path), "evals/suite.yaml")
    assert says in str(refused.value)
