"""bisect by suite, in process: the example's poisoned run through the gate, and scores that lie."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from adapterbot import pipeline
from adapterbot.bisect import Archive, Limits
from adapterbot.bisect import read as read_journal
from adapterbot.changes.conventions import discover
from adapterbot.changes.sides import sides
from adapterbot.commands.bisect import BisectOptions
from adapterbot.commands.bisect import run as bisect
from adapterbot.commands.evaluator import engine
from adapterbot.errors import InputError
from adapterbot.eval.engine import Engine
from adapterbot.eval.settings import EngineSettings
from adapterbot.eval.suite import load_suite
from adapterbot.files.tree import WorkTree
from adapterbot.pipeline import Services
from adapterbot.probing.chunks import Chunks, Series
from adapterbot.probing.names import Prior
from adapterbot.records import BisectVerdict, Source
from adapterbot.weights.peft_dir import adapter_digest
from tests import command_line, example

SHARE = 0.15


class Silent:
    """Nobody listens."""

    def opened(self, stage):
        pass

    def closed(self, stage, seconds):
        pass

    def advanced(self, stage, done, total):
        pass

    def said(self, message):
        pass


class Flipping:
    """An evaluator of which a share of the scores is turned around, always the same ones."""

    def __init__(self, inner, seed: int) -> None:
        self._inner, self._seed = inner, seed
        self.samples = 0

    def prepare(self, tasks, adapters):
        self._inner.prepare(tasks, adapters)

    def evaluate(self, tasks, adapter, **options):
        digest = adapter_digest(adapter.path) if adapter else ""

        def flipped(sample):
            key = f"{self._seed} {digest} {sample.sample_id}".encode()
            lies = hashlib.sha256(key).digest()[0] / 256 < SHARE
            return sample.model_copy(update={"score": 1.0 - sample.score}) if lies else sample

        results = self._inner.evaluate(tasks, adapter, **options)
        self.samples += sum(len(result.samples) for result in results)
        return tuple(
            result.model_copy(update={"samples": tuple(map(flipped, result.samples))})
            for result in results
        )

    def stats(self):
        return self._inner.stats()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The example's repository, and an engine with a cache of scores."""
    folder = tmp_path_factory.mktemp("suite")
    repository = example.build(folder / "repository")
    base = folder / "base"
    example.git(repository, "worktree", "add", "-q", str(base), "main")
    kept = {"ADAPTERBOT_CACHE": str(folder / "scores")}
    load = functools.cache(engine(EngineSettings(device="cpu"), kept)())
    return base, repository, load


def gate(world, wrap):
    """The bisect of one gate, and the samples that were asked for."""
    base, head, make = world
    used = []

    def make_wrapped(model):
        used.append(wrap(make(model)))
        return used[-1]

    where = sides(WorkTree(base), WorkTree(head))
    (adapter,) = discover(where.head.survey()).adapters
    services = Services(
        engine=lambda: make_wrapped, listener=Silent(), cache=base / "no-checkpoints"
    )
    report = pipeline.gate(where, [adapter], services, Source())
    return report.adapters[0], used[0].samples


def blamed(repository, monkeypatch, folder, **options):
    monkeypatch.chdir(repository)
    asked = BisectOptions(metric="dates_us", device="cpu", blame=True, out=folder, **options)
    return bisect(asked, {"ADAPTERBOT_CACHE": str(folder / "scores")})


def assert_as_alone(repository, work, about, probes) -> None:
    """Each probe says what it says in this process, one after the other."""
    archive = Archive(WorkTree(repository), work)
    suite = load_suite(WorkTree(repository), "evals/suite.yaml")
    (task,) = (task for task in suite.tasks if task.name == "dates_us")
    with Engine(repository / "base", EngineSettings(device="cpu")) as one_process:
        (good,) = one_process.evaluate([task], repository / about.checkpoints[0].path)
        series = Series.of("dates_us", task, None, good)
        probe = Chunks(archive, about.checkpoints, [series], [good], one_process)
        for entry in probes:
            assert tuple(probe(entry.index, entry.kind, 0).outcome) == entry.outcome


def test_a_search_may_expect_the_break_where_the_weights_moved(tmp_path, monkeypatch) -> None:
    repository = example.build(tmp_path / "repository")
    monkeypatch.chdir(repository)
    options = BisectOptions(metric="dates_us", device="cpu", prior=Prior.WEIGHTS, out=tmp_path)
    written = bisect(options, {"ADAPTERBOT_CACHE": str(tmp_path / "scores")})
    assert written.report.adapters[0].bisect.first_broken == example.FIRST_POISONED
    about, _ = read_journal(tmp_path / "bisect.journal")

    def dense(checkpoint) -> torch.Tensor:
        found = load_file(repository / checkpoint.path / "adapter_model.safetensors")
        config = json.loads((repository / checkpoint.path / "adapter_config.json").read_text())
        factors = [
            (found[name.replace("lora_A", "lora_B")].double(), found[name].double())
            for name in sorted(found)
            if "lora_A" in name
        ]
        return torch.cat([(b @ a).ravel() for b, a in factors]) * config["lora_alpha"] / config["r"]

    updates = [dense(checkpoint) for checkpoint in about.checkpoints]
    moves = np.array([float((b - a).norm()) for a, b in pairwise(updates)])
    assert moves.max() > 1.5 * moves.min()
    # A tenth for "all are bad", half for "none is"; a quarter of the rest is spread evenly.
    inner = 0.4 * (0.25 / len(moves) + 0.75 * moves / moves.sum())
    np.testing.assert_allclose(about.setting.prior, [0.1, *inner, 0.5], rtol=1e-4)


def test_blame_names_the_rows_that_broke_it(tmp_path, monkeypatch) -> None:
    repository = example.build(tmp_path / "repository")
    done = blamed(repository, monkeypatch, tmp_path / "out", output=tmp_path / "bisect.json")
    saved = json.loads((tmp_path / "bisect.json").read_text())
    assert saved["first_broken"] == f"checkpoints/{example.FIRST_POISONED}"
    rows = saved["between"]["blame"]
    assert saved["between"]["rows_ranked"] == 288
    clean = (example.EXAMPLE / "data" / "clean" / "step-0440.jsonl").read_text().splitlines()
    wrong = [
        json.loads(one["row"]["after"])["output"]
        != json.loads(clean[one["row"]["line"] - 1])["output"]
        for one in rows
    ]
    assert wrong == [True] * 10
    assert [one["pull"] for one in rows] == sorted((one["pull"] for one in rows), reverse=True)
    comment = done.comment_paths[0].read_text()
    assert "Training rows that pull most towards what got worse, of the 288" in comment
    (repository / "adapterbot.yaml").unlink()
    with pytest.raises(InputError, match="which rows each checkpoint was trained on"):
        blamed(repository, monkeypatch, tmp_path / "out")


def test_probes_at_once_on_a_cluster_say_what_one_process_says(tmp_path, monkeypatch) -> None:
    pytest.importorskip("ray", reason="adapterbot[ray] is not installed")
    repository = example.build(tmp_path / "repository")
    monkeypatch.chdir(repository)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    asked = BisectOptions(
        metric="dates_us", device="cpu", out=tmp_path / "out", limits=Limits(jobs=3)
    )
    cache = {"ADAPTERBOT_CACHE": str(tmp_path / "scores")}
    done = bisect(replace(asked, ray="local"), cache)
    (section,) = done.report.adapters
    assert section.bisect
    assert section.bisect.first_broken == example.FIRST_POISONED
    about, entries = read_journal(tmp_path / "out" / "bisect.journal")
    probes = [entry for entry in entries if not entry.given]
    assert len(probes) >= 3
    assert section.eval
    chunks = [len(entry.outcome) for entry in probes]
    assert section.eval.samples == 200 + sum(chunks)
    assert_as_alone(repository, tmp_path, about, probes)


def test_probes_at_once_on_one_device_find_what_one_at_a_time_finds(tmp_path, monkeypatch) -> None:
    repository = example.build(tmp_path / "repository")
    monkeypatch.chdir(repository)
    asked = BisectOptions(metric="dates_us", device="cpu", out=tmp_path / "one")
    cache = {"ADAPTERBOT_CACHE": str(tmp_path / "scores")}
    alone = bisect(asked, cache).report.adapters[0].bisect
    together = replace(asked, out=tmp_path / "four", limits=Limits(jobs=4))
    found = bisect(together, {"ADAPTERBOT_CACHE": str(tmp_path / "others")}).report
    assert alone
    assert found.adapters[0].bisect
    for one in (alone, found.adapters[0].bisect):
        assert (one.verdict, one.first_broken) == (
            BisectVerdict.BROKEN_AT,
            example.FIRST_POISONED,
        )
    journal = tmp_path / "four" / "bisect.journal"
    about, entries = read_journal(journal)
    probes = [entry for entry in entries if not entry.given]
    assert len({entry.index for entry in probes[:4]}) == 4
    assert_as_alone(repository, tmp_path, about, probes)
    # Cut off within a batch, the rest is asked, and nothing twice.
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: len(lines) - len(probes) + 2]) + b'{"index": 3, "outc')
    again = bisect(replace(together, resume=True), cache).report.adapters[0].bisect
    assert again
    assert (again.verdict, again.first_broken) == (alone.verdict, alone.first_broken)
    _, resumed = read_journal(journal)
    assert resumed[: len(entries) - len(probes) + 2] == entries[: len(entries) - len(probes) + 2]
    assert len(again.probes) == len(resumed)


def test_killed_in_the_middle_it_goes_on_without_repeating_a_probe(tmp_path) -> None:
    """Real processes and SIGKILL; every process has a cache of its own, so that a probe which is
    made twice is evaluated twice."""
    repository = example.build(tmp_path / "repository")

    def search(out: str, cache: str, *arguments: str) -> command_line.Process:
        asked = ("--metric", "dates_us", "--device", "cpu", "--confidence", "0.9999")
        return command_line.start(
            *("bisect", *asked, "--out", tmp_path / out, *arguments),
            cwd=repository,
            env={**os.environ, "ADAPTERBOT_CACHE": str(tmp_path / cache)},
        )

    def finished(journal: Path) -> int:
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    assert search("whole", "first", "-o", str(tmp_path / "whole.json")).wait(300) == 3
    whole = json.loads((tmp_path / "whole.json").read_text())
    _, uncut = read_journal(tmp_path / "whole" / "bisect.journal")
    before_any = 1 + len([entry for entry in uncut if entry.given])
    journal = tmp_path / "cut" / "bisect.journal"
    process = search("cut", "second")
    until = time.monotonic() + 300
    while finished(journal) < before_any + 2 and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    written = journal.read_bytes()
    kept = written[: written.rindex(b"\n") + 1]
    before = finished(journal)
    journal.write_bytes(kept + b'{"index": 3, "outc')  # cut off in writing
    again = search("cut", "third", "--resume", "-o", str(tmp_path / "cut.json"))
    assert again.wait(300) == 3
    assert journal.read_bytes().startswith(kept)
    resumed = json.loads((tmp_path / "cut.json").read_text())
    for told in ("verdict", "first_broken", "last_good", "metrics", "interval"):
        assert resumed[told] == whole[told], told
    assert resumed["first_broken"] == f"checkpoints/{example.FIRST_POISONED}"
    about, entries = read_journal(journal)
    new = entries[before - 1 :]
    assert new, "it was over before it was killed"
    assert len(resumed["steps"]) == len(entries)
    # Both ends are evaluated by every process, and of the probes only those that were missing.
    report = json.loads((tmp_path / "cut" / "report.json").read_text())
    counted = report["adapters"][0]["eval"]
    assert counted["cached"] == 0
    chunks = [len(entry.outcome) for entry in new]
    assert counted["samples"] == 200 + sum(chunks)
    assert_as_alone(repository, tmp_path, about, [one for one in entries if not one.given])


@pytest.mark.parametrize("said_by", ["the action's input", "a dispatch"])
def test_the_input_checkpoints_is_one_path_though_it_holds_a_space(tmp_path, said_by) -> None:
    """Taken apart at its spaces, it named folders that do not exist; to the gate it was one."""
    repository = example.build(tmp_path / "repository")
    env = {**os.environ, "ADAPTERBOT_CHECKPOINTS": " training runs/*"}
    if said_by == "a dispatch":
        event = {"repository": {"full_name": "acme/adapters"}}
        event["inputs"] = {"checkpoints": env.pop("ADAPTERBOT_CHECKPOINTS")}
        (tmp_path / "event.json").write_text(json.dumps(event))
        env["GITHUB_EVENT_NAME"] = "workflow_dispatch"
        env["GITHUB_EVENT_PATH"] = str(tmp_path / "event.json")
    done = command_line.run("bisect", "--out", tmp_path / "out", cwd=repository, env=env)
    assert done.returncode == 2
    assert "training runs/*: checkpoints: matches no adapter directory" in done.stderr


def test_a_server_is_asked_one_probe_at_a_time(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(example.build(tmp_path / "repository"))
    with pytest.raises(InputError, match="under one adapter at a time"):
        bisect(BisectOptions(server="http://127.0.0.1:9/v1", limits=Limits(jobs=2)), {})


def test_scores_that_lie_in_15_of_100_do_not_hide_the_poisoned_step(world) -> None:
    right, seeds = 0, int(os.environ.get("BISECT_SEEDS", "4"))
    for seed in range(seeds):
        section, _ = gate(world, lambda inner, seed=seed: Flipping(inner, seed))
        found = section.bisect
        assert found, section
        right += (
            found.verdict is BisectVerdict.BROKEN_AT
            and found.first_broken == example.FIRST_POISONED
        )
    assert right >= seeds - 1
