"""`adapterbot eval` and `adapterbot delta`: real processes, killed and side by side."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from adapterbot.cli import app
from adapterbot.commands.evaluate import EvalOptions, run
from adapterbot.errors import InputError
from adapterbot.eval.saved import load_results
from tests import command_line
from tests.example import EXAMPLE
from tests.hub_server import Hub, Repository
from tests.openai_server import OpenAIServer
from tests.programs import python

GOOD, BAD = "adapters/dates", "history/poisoned/checkpoint-0640"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def results(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three adapters evaluated by the command itself; the folder of what it kept."""
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(EXAMPLE)
        found = run(
            EvalOptions((GOOD, BAD, "none"), device="cpu", out=out),
            {"ADAPTERBOT_CACHE": str(cache)},
        )
    (out / "shown.json").write_text(found.model_dump_json())
    return out / "results"


def start(cache: Path, out: Path, *options: str) -> command_line.Process:
    return command_line.start(
        *("eval", GOOD, "--json", "--out", out, *options),
        cwd=EXAMPLE,
        env={**os.environ, "ADAPTERBOT_CACHE": str(cache), "ADAPTERBOT_DEVICE": "cpu"},
    )


def finished(process: command_line.Process) -> dict[str, Any]:
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    document: dict[str, Any] = json.loads(stdout)
    return document


def stored(cache: Path) -> int:
    try:
        with sqlite3.connect(f"file:{cache / 'scores.sqlite'}?mode=ro", uri=True) as database:
            return int(database.execute("SELECT count(*) FROM scores").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def test_every_sample_is_kept_with_what_it_means(results: Path) -> None:
    head, tasks = load_results(results / "adapters-dates.jsonl")
    assert head.adapter.path == GOOD
    assert [task.name for task in head.tasks] == ["dates_eu", "dates_us", "dates_iso"]
    assert [len(result.samples) for result in tasks] == [100, 100, 100]
    shown = json.loads((results.parent / "shown.json").read_text())
    for adapter in shown["adapters"]:
        _, kept = load_results(Path(adapter["results"]))
        for mean, result in zip(adapter["tasks"], kept, strict=True):
            assert mean["mean"] == pytest.approx(sum(s.score or 0.0 for s in result.samples) / 100)
    assert len({adapter["results"] for adapter in shown["adapters"]}) == 3


def test_delta_judges_as_the_gate_does(results: Path, tmp_path: Path) -> None:
    pair = [str(results / "adapters-dates.jsonl"), str(results / f"{BAD.replace('/', '-')}.jsonl")]
    done = CliRunner().invoke(app, ["delta", *pair, "--json", "--out", str(tmp_path)])
    assert done.exit_code == 3
    report = json.loads(done.stdout)["adapters"][0]
    assert report["verdict"]["outcome"] == "regressed"
    assert [m["delta"]["task"] for m in report["metrics"] if m["standing"] == "regressed"] == [
        "dates_us"
    ]
    assert report["samples_changed"] > 20
    same = CliRunner().invoke(app, ["delta", pair[0], pair[0], "--out", str(tmp_path)])
    assert same.exit_code == 0


def test_delta_leaves_the_report_of_the_gate(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNNER_TEMP", raising=False)
    left = tmp_path / ".adapterbot" / "report.json"
    left.parent.mkdir()
    left.write_text("the gate's")
    pair = [str(results / "adapters-dates.jsonl")] * 2
    assert CliRunner().invoke(app, ["delta", *pair]).exit_code == 0
    assert left.read_text() == "the gate's"
    told = CliRunner().invoke(app, ["explain", ".adapterbot/delta/report.json"])
    assert told.stdout.startswith("adapters/dates: passed")


@pytest.mark.parametrize(
    ("line", "content", "says"),
    [
        (0, '{"version": 1}', "is not a line of results"),
        (5, '{"task": "dates_eu", "sample": {"sample_id": "x", "score": NaN}}', "not a line"),
        (5, "[" * 100_000, "is not a line of results"),
        (5, '{"task": "other", "sample": {"sample_id": "x", "score": 1}}', "does not name"),
    ],
    ids=["head", "NaN", "nested", "unknown task"],
)
def test_results_that_are_not_ours_are_named(
    line: int, content: str, says: str, results: Path, tmp_path: Path
) -> None:
    """Attack: a results file that crashes, or smuggles a task past, whoever compares it."""
    kept = results / "adapters-dates.jsonl"
    lines = kept.read_text().splitlines()
    lines[line] = content
    broken = tmp_path / "broken.jsonl"
    broken.write_text("\n".join(lines))
    with pytest.raises(InputError, match=says) as caught:
        load_results(broken)
    assert caught.value.field == f"line {line + 1}"


def test_results_of_other_questions_are_not_compared(results: Path, tmp_path: Path) -> None:
    kept = results / "adapters-dates.jsonl"
    head, *rest = kept.read_text().splitlines()
    other = json.loads(head)
    other["tasks"][1]["digest"] = "0" * 64
    changed = tmp_path / "changed.jsonl"
    changed.write_text("\n".join([json.dumps(other), *rest]))
    done = CliRunner().invoke(app, ["delta", str(kept), str(changed), "--out", str(tmp_path)])
    assert isinstance(done.exception, InputError)
    assert "was asked another 'dates_us'" in done.exception.message


def test_a_run_killed_in_the_middle_asks_only_what_is_missing(
    results: Path, tmp_path: Path
) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    # Small batches, so that there is a middle.
    small = ("--engine", "token_budget=400")
    process = start(cache, out, *small)
    until = time.monotonic() + 120
    while stored(cache) < 64:
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not out.exists(), "nothing half-written"
    before = stored(cache)
    assert 64 <= before < 300
    jobs = [start(cache, tmp_path / str(i), *small) for i in range(2)]
    found = [finished(job) for job in jobs]
    assert all(f["adapters"][0]["eval"]["cached"] >= before for f in found)
    want = load_results(results / "adapters-dates.jsonl")[1]
    for one in found:
        assert load_results(Path(one["adapters"][0]["results"]))[1] == want
    assert stored(cache) == 300


def judged(tmp_path: Path, pause: float, **rows: int) -> Callable[[], command_line.Process]:
    """What starts an evaluation of tasks of so many rows. The answers of `slow` are scored by a
    judge, who notes each in the file `asked` and thinks for so many seconds."""
    judge = "{name: command, argv: [sh, judge.sh], files: [judge.sh], timeout: 60}"
    suite = "version: 1\ndefaults: {margin: 1, generation: {max_new_tokens: 4}}\ntasks:\n"
    for task, count in rows.items():
        asked = [{"prompt": f"{n}\n", "expected": "x", "id": str(n)} for n in range(count)]
        (tmp_path / f"{task}.jsonl").write_text("\n".join(map(json.dumps, asked)))
        scorer = judge if task == "slow" else "exact"
        suite += f"  - {{name: {task}, data: {task}.jsonl, scorer: {scorer}}}\n"
    (tmp_path / "suite.yaml").write_text(suite)
    (tmp_path / "judge.sh").write_text(f"echo >> {tmp_path}/asked; sleep {pause}; echo 0.5\n")
    command = ("eval", "none", "--base", EXAMPLE / "base", "--suite", "suite.yaml")
    options = (*command, "--device", "cpu", "--out", tmp_path / "out", "--json")
    environment = {**os.environ, "ADAPTERBOT_CACHE": str(tmp_path / "cache")}
    return partial(command_line.start, *options, cwd=tmp_path, env=environment)


def kill_while_asked(process: command_line.Process, asked: Path, questions: int) -> None:
    until = time.monotonic() + 120
    while not (asked.exists() and len(asked.read_text()) >= questions):
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_what_a_slow_scorer_said_is_kept_at_once(tmp_path: Path) -> None:
    """Attack: SIGKILL while a judge thinks about its sixth answer. Of less than 64 nothing was
    kept, and the judge was paid again."""
    evaluation, asked = judged(tmp_path, 0.1, slow=10), tmp_path / "asked"
    kill_while_asked(evaluation(), asked, 6)
    before = stored(tmp_path / "cache")
    assert before >= 5
    asked.unlink()
    finished(evaluation())
    assert len(asked.read_text()) == 10 - before


def test_of_a_batch_before_a_slow_scorer_most_is_kept(tmp_path: Path) -> None:
    """Attack: SIGKILL after 200 answers of one batch, which came within a moment."""
    evaluation = judged(tmp_path, 5, fast=200, slow=1)
    kill_while_asked(evaluation(), tmp_path / "asked", 1)
    assert stored(tmp_path / "cache") >= 200 - 63


def test_a_second_run_asks_nothing(
    cache: Path, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(EXAMPLE)
    found = run(EvalOptions((BAD,), device="cpu", out=tmp_path), {"ADAPTERBOT_CACHE": str(cache)})
    assert (found.adapters[0].eval.samples, found.adapters[0].eval.cached) == (300, 300)


def configured(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> EvalOptions:
    """A few questions of the example, asked from a directory with this adapterbot.yaml."""
    (folder / "adapterbot.yaml").write_text(f"adapters: [{{path: adapters/dates}}]\n{text}")
    data = min((EXAMPLE / "evals").glob("*.jsonl")).read_text().splitlines()
    (folder / "few.jsonl").write_text("\n".join(data[:6]))
    (folder / "suite.yaml").write_text(
        "{version: 1, tasks: [{name: few, data: few.jsonl, scorer: exact,"
        ' generation: {max_new_tokens: 16, stop: ["\\n"]}}]}'
    )
    monkeypatch.chdir(folder)
    return EvalOptions(
        (str(EXAMPLE / GOOD),),
        base=str(EXAMPLE / "base"),
        suite="suite.yaml",
        out=folder / "out",
    )


def test_settings_are_those_of_the_config(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = configured(tmp_path, monkeypatch, "engine: {dtype: bfloat16, device: cpu}\n")
    here = {"ADAPTERBOT_CACHE": str(cache)}
    assert run(options, here).adapters[0].eval.dtype == "bfloat16"
    by_hand = replace(options, engine=("dtype=float32",))
    assert run(by_hand, here).adapters[0].eval.dtype == "float32"


def test_the_server_of_the_config_answers_at_the_address_given_by_hand(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {"ADAPTERBOT_CACHE": str(cache)}
    options = configured(tmp_path, monkeypatch, "engine: {dtype: float32, device: cpu}\n")
    (local,) = run(options, here).adapters
    with OpenAIServer(EXAMPLE / "base") as server:
        configured(tmp_path, monkeypatch, "server: {url: http://nowhere/v1, model: tiny}\n")
        (there,) = run(replace(options, server=server.url), here).adapters
        assert server.seen
    assert there.tasks == local.tasks


def test_weights_of_a_suite_make_one_score(
    cache: Path, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weighted = tmp_path / "evals"
    weighted.mkdir()
    for data in (EXAMPLE / "evals").glob("*.jsonl"):
        (weighted / data.name).write_bytes(data.read_bytes())
    text = (EXAMPLE / "evals" / "suite.yaml").read_text()
    suite = weighted / "suite.yaml"
    suite.write_text(text.replace("  - name: dates_us\n", "  - name: dates_us\n    weight: 6\n"))
    monkeypatch.chdir(EXAMPLE)
    options = EvalOptions((GOOD, BAD), suite=str(suite), device="cpu", out=tmp_path)
    found = run(options, {"ADAPTERBOT_CACHE": str(cache)})
    for adapter in found.adapters:
        assert adapter.eval.cached == 300, "a weight is policy: no answer depends on it"
        eu, us, iso = (task.mean or 0.0 for task in adapter.tasks)
        assert adapter.weighted == pytest.approx((eu + 6 * us + iso) / 8)
    pair = [adapter.results for adapter in found.adapters]
    done = CliRunner().invoke(app, ["delta", *pair, "--json", "--out", str(tmp_path)])
    (note,) = json.loads(done.stdout)["adapters"][0]["notes"]
    before, after = (100 * (adapter.weighted or 0.0) for adapter in found.adapters)
    assert note.startswith(f"weighted score: {before:.1f} % → {after:.1f} % (−")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"base": "no/such/base"}, "neither a directory nor a model"),
        ({"suite": "no/suite.yaml"}, "does not exist"),
        ({"config": "no.yaml"}, "no training config"),
        ({"base": "./no-base"}, "./no-base: --base: does not exist"),
        ({"device": "gpu"}, r"--device: cannot be 'gpu' \(write auto, cpu, cuda or cuda:1\)"),
        (
            {"engine": ("dtype=fp16",)},
            r"^engine\.dtype: is 'fp16'; it must be 'auto', 'float32', 'bfloat16' or 'float16' \(",
        ),
        ({"out": EXAMPLE / "soup.yaml"}, "soup.yaml: --out: cannot be written"),
        ({"adapters": ("no/adapter",)}, "does not exist"),
    ],
)
def test_bad_input_is_named(
    options: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(EXAMPLE)
    with pytest.raises(InputError, match=says):
        run(EvalOptions(**{"adapters": (GOOD,), "out": tmp_path, **options}), {})
    assert not (tmp_path / "results").exists()


def with_base(hub: str, folder: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """`eval` over a base of a Hub; a process, since the Hub's client reads its settings once."""
    settings = {"HF_ENDPOINT": hub, "HF_HOME": str(folder), "HF_HUB_DISABLE_XET": "1"}
    settings |= {"ADAPTERBOT_CACHE": str(cache), "ADAPTERBOT_OUT": str(folder / "out")}
    # Scores of other numbers of threads are kept apart, and tests before this may have changed it.
    settings["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    return python(
        "-m", "adapterbot", "eval", GOOD, "--base", "acme/tiny", "--json", cwd=EXAMPLE, env=settings
    )


def test_a_base_of_the_hub_is_this_machines_copy_where_the_hub_is_silent(
    results: Path, cache: Path, tmp_path: Path
) -> None:
    files = {path.name: path.read_bytes() for path in (EXAMPLE / "base").iterdir()}
    weights = frozenset(name for name in files if name.endswith(".safetensors"))
    kept = Repository("1" * 40, files, lfs=weights, serves_lfs=True)
    with Hub({"models/acme/tiny": kept}) as hub:
        answered = with_base(hub.url, tmp_path, cache)
    assert answered.returncode == 0, answered.stderr
    silent = with_base(hub.url, tmp_path, cache)
    assert silent.returncode == 0, silent.stderr
    known = json.loads((results.parent / "shown.json").read_text())["adapters"][0]["tasks"]
    for done in (answered, silent):
        (found,) = json.loads(done.stdout)["adapters"]
        assert [task["mean"] for task in found["tasks"]] == [task["mean"] for task in known]
        assert found["eval"]["cached"] == 300, "the same files, whoever gives them"
