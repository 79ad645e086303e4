"""`adapterbot merge` on specialists that were really trained, from the command line."""

from __future__ import annotations

import json
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from adapterbot.commands import merge as command
from adapterbot.commands.merge import checkpoint_path
from adapterbot.commands.merge_options import MergeOptions, SearchOptions
from adapterbot.commands.merge_search import suite_items
from adapterbot.console import PlainListener
from adapterbot.errors import InputError, OurFailure
from adapterbot.eval.base_model import load_base
from adapterbot.eval.blends import BlendedModel
from adapterbot.eval.suite import load_suite
from adapterbot.files.tree import WorkTree
from adapterbot.lock.schema import Lock, closure, dumps
from adapterbot.merge import checkpoint
from adapterbot.merge.names import Strategy
from adapterbot.records import EngineSettings
from adapterbot.records.merge import MergeRecord, StopReason
from adapterbot.weights import adapter_digest, load_adapter, merge_linear, save_adapter
from adapterbot.weights.layers import group_of, layer_groups
from tests import command_line, tiny_models
from tests.adapter_kinds import QV
from tests.example import EXAMPLE
from tests.programs import python

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

EXPERTS = EXAMPLE / "experts"
BASE = EXAMPLE / "base"
DATES = ("dates_eu", "dates_us", "dates_iso")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dates suite with twelve rows a task."""
    directory = tmp_path_factory.mktemp("suite")
    content = yaml.safe_load((EXAMPLE / "evals/suite.yaml").read_text())
    for task in content["tasks"]:
        rows = (EXAMPLE / "evals" / task["data"]).read_text().splitlines()[:12]
        (directory / task["data"]).write_text("\n".join(rows) + "\n")
    (directory / "suite.yaml").write_text(yaml.safe_dump(content))
    return directory / "suite.yaml"


def options(output: Path, *names: str, **more: Any) -> MergeOptions:
    adapters = tuple(EXPERTS / name for name in names or DATES)
    return MergeOptions(adapters, output, **{"strategy": Strategy.CMAES, "base": str(BASE), **more})


def search(suite: Path, **more: Any) -> SearchOptions:
    settings = EngineSettings(device="cpu")
    wanted = {"budget": 600, "generations": 2, "settings": settings, **more}
    return SearchOptions(suite, **wanted)


def arguments(suite: Path, output: Path, *more: str) -> list[str]:
    adapters = [part for name in DATES for part in ("--adapter", str(EXPERTS / name))]
    return [
        "merge", "--strategy", "cmaes", *adapters,
        "--eval", str(suite), "--base", str(BASE), "--budget", "10m", "--device", "cpu",
        "--output", str(output), "--json", *more,
    ]  # fmt: skip


def until(process: command_line.Process, said: str) -> None:
    """Wait for a line of its log."""
    ended = time.monotonic() + 120
    while said not in process.written(1):
        assert process.poll() is None, process.written(1)
        assert time.monotonic() < ended
        time.sleep(0.005)


def test_a_search_end_to_end(suite: Path, tmp_path: Path) -> None:
    done = command_line.run(*arguments(suite, tmp_path / "merged", "--generations", "2"))
    assert done.returncode == 0, done.stderr
    record = MergeRecord.model_validate_json(done.stdout)
    assert record == MergeRecord.model_validate_json((tmp_path / "merged/merge.json").read_text())
    assert record.search is not None
    assert record.search.selection_items == record.search.report_items == 18
    assert len(record.search.history) == 3
    rows = {row.name: row for row in record.search.finalists}
    assert set(rows) == {*DATES, "uniform", "best candidate", "mean of the search"}
    winner = rows[record.search.winner]
    assert winner.report is not None
    assert winner.report > max(rows[name].report or 0 for name in DATES)
    assert "generation 2: best" in done.stderr
    ET.parse(tmp_path / "merged/scores.svg")
    assert not checkpoint_path(tmp_path / "merged").exists()
    # What was written is what was scored: Σ wᵢ ΔWᵢ, in PEFT's own eyes.
    merged = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(BASE), tmp_path / "merged"
    )
    layer = merged.base_model.model.model.layers[1].mlp.up_proj
    want = sum(
        w * load_adapter(EXPERTS / name).delta_weight("model.layers.1.mlp.up_proj")
        for w, name in zip(winner.weights[0], DATES, strict=True)
    )
    got = layer.get_delta_weight("default")
    assert float((got - want).norm() / want.norm()) < 2**-8  # the inputs are stored in bfloat16


def test_what_several_tasks_ask_is_chosen_by_or_reported_on(tmp_path: Path) -> None:
    """Under another metric, as the text of another prompt's document, and with another reference;
    a question that many clusters ask joins none of them."""

    def rows(name: str, *content: dict[str, str]) -> None:
        (tmp_path / name).write_text("".join(f"{json.dumps(one)}\n" for one in content))

    numbers = range(6)
    rows("same.jsonl", *({"prompt": f"q{i}", "expected": f"a{i}"} for i in numbers))
    rows("other.jsonl", *({"prompt": f"q{i}", "expected": f"A{i}"} for i in numbers))
    for name in ("long", "short"):
        content = ({"prompt": f"{name} {i}", "expected": "a", "of": f"d{i}"} for i in numbers)
        rows(f"{name}.jsonl", *content)
    crossed = [(question, person) for question in "ab" for person in numbers]
    rows(
        "crossed.jsonl",
        *({"prompt": q, "expected": "a", "of": f"{q}{p}" if q == "a" else str(p)}
          for q, p in crossed),
    )  # fmt: skip
    (tmp_path / "suite.yaml").write_text(
        "version: 1\ntasks:\n"
        "  - {name: exact, data: same.jsonl, scorer: exact}\n"
        "  - {name: chrf, data: same.jsonl, scorer: chrf}\n"
        "  - {name: nll, data: same.jsonl, scorer: bits_per_byte, margin: 0.1}\n"
        "  - {name: other, data: other.jsonl, scorer: exact}\n"
        "  - {name: long, data: long.jsonl, scorer: exact, cluster: of}\n"
        "  - {name: short, data: short.jsonl, scorer: exact, cluster: of}\n"
        "  - {name: crossed, data: crossed.jsonl, scorer: exact, cluster: of}\n"
    )
    tasks = load_suite(WorkTree(tmp_path), "suite.yaml").tasks
    items = suite_items(tasks, "suite.yaml")
    found = {
        task.name: items.cluster[items.task == number].tolist() for number, task in enumerate(tasks)
    }
    assert found["exact"] == found["chrf"] == found["nll"] == found["other"]
    assert found["long"] == found["short"]
    assert not set(found["exact"]) & set(found["long"])
    assert [len(set(found[name])) for name in found] == [6, 6, 6, 6, 6, 6, 12]
    one, two = items.split(np.random.default_rng(0))
    assert not {items.cluster[i] for i in one} & {items.cluster[i] for i in two}


def test_a_cluster_finds_what_one_process_finds(suite: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="adapterbot[ray] is not installed")
    common = ("--generations", "1", "--engine", "dtype=float32")
    here, there = (
        command_line.start(*arguments(suite, tmp_path / name, *common, *more))
        for name, more in (("here", ()), ("there", ("--ray", "local")))
    )
    searches = []
    for process in (here, there):
        output, error = process.communicate()
        assert process.returncode == 0, error
        searches.append(MergeRecord.model_validate_json(output).search)
    assert searches[0] is not None
    assert searches[1] is not None
    assert searches[0].finalists == searches[1].finalists
    assert searches[0].history == searches[1].history


def test_ctrl_c_writes_the_best_so_far(suite: Path, tmp_path: Path) -> None:
    process = command_line.start(*arguments(suite, tmp_path / "merged"))
    until(process, "generation 1:")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 0
    record = MergeRecord.model_validate_json(output)
    assert record.search is not None
    assert record.search.stop is StopReason.INTERRUPTED
    assert load_adapter(tmp_path / "merged").updates
    assert checkpoint_path(tmp_path / "merged").exists(), "the search can go on"


def test_sigterm_before_the_search_is_as_ctrl_c_and_leaves_nothing(
    suite: Path, tmp_path: Path
) -> None:
    """The first process of a container does not see it at all, unless it handles it."""
    command = [sys.executable, "-m", "adapterbot", *arguments(suite, tmp_path / "merged")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "read suite" in line:
                process.send_signal(signal.SIGTERM)
                break
        output, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1
    assert said.splitlines()[-1] == "interrupted"
    assert json.loads(output)["error"]["kind"] == "ended"
    assert not list(tmp_path.iterdir())


def test_a_killed_search_goes_on_bit_for_bit(suite: Path, tmp_path: Path) -> None:
    whole = command.run(options(tmp_path / "whole"), search(suite), PlainListener())
    process = command_line.start(*arguments(suite, tmp_path / "killed", "--generations", "2"))
    until(process, "generation 1:")
    place = checkpoint_path(tmp_path / "killed")
    ended = time.monotonic() + 60
    while not place.exists() and time.monotonic() < ended:
        time.sleep(0.01)
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(InputError, match="is the checkpoint of a search that did not end"):
        command.run(options(tmp_path / "killed"), search(suite), PlainListener())
    with pytest.raises(InputError, match="seed: was made with 0, and now it is 1"):
        command.run(
            options(tmp_path / "killed", seed=1), search(suite, resume=True), PlainListener()
        )
    resumed = command.run(options(tmp_path / "killed"), search(suite, resume=True), PlainListener())
    assert resumed.search is not None
    assert whole.search is not None
    assert resumed.search.history == whole.search.history
    assert resumed.search.finalists == whole.search.finalists
    assert resumed.output_digest == whole.output_digest


def test_all_failing_leaves_nothing(tmp_path: Path) -> None:
    rows = [{"prompt": f"{letter} " * 400, "expected": "y"} for letter in "abcd"]
    (tmp_path / "long.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "suite.yaml").write_text(
        "version: 1\ntasks:\n- {name: long, data: long.jsonl, scorer: exact, margin: 0.1}\n"
    )
    before = set(tmp_path.iterdir())
    with pytest.raises(OurFailure, match=r"every starting point failed .* positions"):
        command.run(options(tmp_path / "merged"), search(tmp_path / "suite.yaml"), PlainListener())
    assert set(tmp_path.iterdir()) == before


def test_what_no_candidate_can_be_made_of_is_refused_before_the_search(
    suite: Path, tmp_path: Path
) -> None:
    one = tiny_models.save_adapter(BASE, tmp_path / "one", r=2, target_modules=["lm_head"])
    two = tiny_models.save_adapter(
        BASE, tmp_path / "two", r=2, target_modules=QV, modules_to_save=["lm_head"]
    )
    asked = MergeOptions((one, two), tmp_path / "merged", Strategy.CMAES, base=str(BASE))
    with pytest.raises(InputError, match="lm_head: has low-rank weights here, and is saved whole"):
        command.run(asked, search(suite), PlainListener())


def test_a_full_disk_keeps_the_best_weights(suite: Path, tmp_path: Path) -> None:
    """No file may grow beyond the checkpoint: the adapter cannot be written."""

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    given = arguments(suite, tmp_path / "merged", "--generations", "1")
    done = python(
        "-m", "adapterbot", *given, preexec_fn=small_files, env={"PYTHONDONTWRITEBYTECODE": "1"}
    )
    assert done.returncode == 1, done.stderr
    assert "free some disk space" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [".merged.search.json"]
    state = json.loads(checkpoint_path(tmp_path / "merged").read_text())["state"]
    assert len(state["best"]["weights"][0]) == 3
    command.run(
        options(tmp_path / "merged"), search(suite, generations=1, resume=True), PlainListener()
    )
    assert load_adapter(tmp_path / "merged").updates


@pytest.mark.parametrize("kind", ["weights", "per-layer", "signed", "whole"])
def test_a_candidate_answers_as_its_merge_would(kind: str, tmp_path: Path) -> None:
    """Gains under the base, against the adapter that would be written."""
    base = tiny_models.save_base("llama", tmp_path / "base", num_hidden_layers=4)
    more: dict[str, Any] = {"modules_to_save": ["lm_head"]} if kind == "whole" else {}
    adapters = [
        load_adapter(
            tiny_models.save_adapter(
                base, tmp_path / str(seed), seed=seed, r=2 + seed, target_modules=QV, **more
            )
        )
        for seed in (1, 2, 3)
    ]
    modules = {module for adapter in adapters for module in adapter.updates}
    groups = layer_groups(modules, 2) if kind == "per-layer" else ((),)
    weights = np.random.default_rng(0).normal(size=(len(groups), 3))
    settings = EngineSettings(device="cpu")
    loaded = load_base(str(base), settings)
    model = BlendedModel(loaded, settings, adapters, groups)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        bare = loaded.model(ids).logits
        model.blend(weights.tolist())
        with model.under(None, ""):
            got = loaded.model(ids).logits
        assert torch.equal(loaded.model(ids).logits, bare)
        model.close()
        merged = merge_linear(
            adapters, lambda module: weights[group_of(module, groups)].tolist(), base=base
        )
        save_adapter(merged, tmp_path / "merged")
        written = peft.PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(base), tmp_path / "merged"
        )
        torch.testing.assert_close(got, written(ids).logits, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        ("linear", {"weights": (0.5, 0.25, 0.25)}),
        ("svd", {"rank": 4}),
        ("ties", {"density": 0.3}),
        ("dare-ties", {"density": 0.5, "rank": 8, "seed": 2**32 - 1}),
        ("task-arithmetic", {"expression": "dates_eu + 0.5*dates_us - dates_iso"}),
    ],
)
def test_strategies_write_adapters(strategy: str, more: dict[str, Any], tmp_path: Path) -> None:
    record = command.run(
        options(tmp_path / "merged", strategy=Strategy(strategy), **more), None, PlainListener()
    )
    assert record.output_digest is not None
    merged = load_adapter(tmp_path / "merged")
    assert len(merged.updates) == 28
    if "rank" in more:
        assert merged.config.r == more["rank"]
        assert record.truncation is not None
        assert 0 < record.truncation < 1
    if "expression" in more:
        assert record.weights == ((1.0, 0.5, -1.0),)


def test_an_adapter_goes_by_the_name_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link, such as `latest`, goes by its own name, and `.` by that of the folder."""
    (tmp_path / "latest").symlink_to(EXPERTS / "dates_eu")
    monkeypatch.chdir(EXPERTS / "dates_us")
    asked = MergeOptions(
        (tmp_path / "latest", Path()),
        tmp_path / "merged",
        Strategy.LINEAR,
        expression="2*latest - dates_us",
        base=str(BASE),
    )
    record = command.run(asked, None, PlainListener())
    assert record.weights == ((2.0, -1.0),)
    assert [Path(one.path).name for one in record.inputs] == ["latest", "dates_us"]


def test_slerp_asks_for_the_ratio_of_its_weights_alone(tmp_path: Path) -> None:
    """Also where only one of the two adapters has a module, which is scaled and not turned."""
    base = tiny_models.save_base("llama", tmp_path / "base")
    for seed, targets in enumerate((["q_proj"], ["q_proj", "v_proj"])):
        tiny_models.save_adapter(base, tmp_path / f"{seed}", seed=seed, r=2, target_modules=targets)
    merged = []
    for name, weights in (("shares", (0.25, 0.75)), ("ratio", (1.0, 3.0))):
        asked = MergeOptions(
            (tmp_path / "0", tmp_path / "1"),
            tmp_path / name,
            Strategy.SLERP,
            weights=weights,
            base=str(base),
        )
        command.run(asked, None, PlainListener())
        merged.append(load_adapter(tmp_path / name))
    assert len(merged[0].updates) == 4
    for module in merged[0].updates:
        torch.testing.assert_close(*(adapter.delta_weight(module) for adapter in merged))


def test_bad_input_is_named(suite: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    other = str(tiny_models.save_base("llama", tmp_path / "other", hidden_size=32))
    linear: dict[str, Any] = {"strategy": Strategy.LINEAR}
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    expert = tmp_path / "dates_eu"
    shutil.copytree(EXPERTS / "dates_eu", expert)
    twin = tmp_path / "twin"
    shutil.copytree(expert, twin)
    wanted = options(tmp_path / "m", **linear)
    for one, words in (
        (options(tmp_path / "m", "dates_eu"), "--adapter: names 1 adapter"),
        (options(tmp_path / "m", "dates_eu", "dates_eu"), "--adapter: names 'dates_eu' twice"),
        (replace(wanted, adapters=(*wanted.adapters, expert)), "names two adapters 'dates_eu'"),
        (replace(wanted, adapters=(expert, twin)), r"twin: is a copy of .*dates_eu \(name it once"),
        (replace(wanted, adapters=(expert, loop)), "loop: does not exist"),
        (options(tmp_path / "there"), "already exists"),
        (options(Path()), r"\.: already exists"),  # a workflow's variable that is not set
        (options(tmp_path / "there" / ("x" * 300), **linear), "cannot be written: File name too"),
        (options(expert / "adapter_config.json" / "m", **linear), "cannot be written: Not a dir"),
        (replace(wanted, adapters=(expert, EXPERTS / "dates_us"), output=expert / "m"), "lies ins"),
        (replace(wanted, weights=(1.0,)), "gives 1 weight for 3"),
        (replace(wanted, weights=(0.0,) * 3), "--weight: is 0 for every adapter"),
        (replace(wanted, expression="0*dates_eu"), "--expression: is 0 for every adapter"),
        (options(tmp_path / "m", strategy=Strategy.TASK_ARITHMETIC), "--expression: is missing"),
        (options(tmp_path / "m", strategy=Strategy.LINEAR, base=other), "was trained for a base"),
        (replace(wanted, base=str(tmp_path / "no")), "no: --base: does not exist"),
    ):
        with pytest.raises(InputError, match=words):
            command.run(one, search(suite), PlainListener())
    with pytest.raises(InputError, match=r"is not a file"):
        command.run(options(tmp_path / "m"), search(tmp_path), PlainListener())
    assert not (tmp_path / "m").exists()
    assert {path.name for path in expert.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_a_rank_that_is_more_than_there_is(tmp_path: Path) -> None:
    record = command.run(
        options(tmp_path / "m", strategy=Strategy.SVD, rank=1000), None, PlainListener()
    )
    assert record.truncation == 0
    assert load_adapter(tmp_path / "m").config.r == 12


def test_what_cannot_be_resumed_is_told_before_anything_is_loaded(
    suite: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"\.m\.search\.json: does not exist \(name the same"):
        command.run(options(tmp_path / "m"), search(suite, resume=True), PlainListener())
    checkpoint.save(tmp_path / ".m.search.json", {"adapters": ["a" * 64]}, {})
    with pytest.raises(InputError, match="is the checkpoint of a search that did not end"):
        command.run(options(tmp_path / "m"), search(suite), PlainListener())
    (tmp_path / "no base").mkdir()
    with pytest.raises(InputError, match="adapters: was made with aaaaaaaaaaaa…, and now it is"):
        command.run(
            options(tmp_path / "m", base=str(tmp_path / "no base")),
            search(suite, resume=True),
            PlainListener(),
        )
    digests = [adapter_digest(EXPERTS / name) for name in DATES]
    made = {"adapters": digests, "engine": "dtype=auto quantization=4bit"}
    checkpoint.save(tmp_path / ".m.search.json", made, {})
    with pytest.raises(InputError, match="engine: was made with dtype=auto quantization=4bit, and"):
        command.run(options(tmp_path / "m"), search(suite, resume=True), PlainListener())
    (tmp_path / "m").mkdir()
    with pytest.raises(InputError, match=r"already exists \(move it away, and the search goes"):
        command.run(options(tmp_path / "m"), search(suite, resume=True), PlainListener())


def named(adapter: Path, target: Path, **says: Any) -> Path:
    """A copy of an adapter that says something else of its base."""
    shutil.copytree(adapter, target)
    config = json.loads((target / "adapter_config.json").read_text())
    (target / "adapter_config.json").write_text(json.dumps({**config, **says}))
    return target


def locked(folder: Path, base_sha: str) -> None:
    lock = Lock("base", base_sha, closure(base_sha, "b" * 64, "c" * 64), "", "b" * 64, "c" * 64, "")
    lock = replace(lock, created_at="2026-01-01", soup_version="1")
    (folder / "soup.lock").write_text(dumps(lock))


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ("/a/llama", "/b/llama", "base_model_name_or_path: is '/b/llama', and '/a/llama'"),
        ("/a/llama", "meta/llama", "is 'meta/llama', and '/a/llama'"),
        ("meta/llama", "google/gemma", "is 'google/gemma', but the base model is 'meta/llama'"),
        ("meta/llama", "Meta/Llama", None),
        ("./base", "base/", None),
        ("/a/llama", None, None),
    ],
)
def test_bases_of_one_shape_are_told_apart_by_what_is_said_of_them(
    one: str, other: str | None, words: str | None, tmp_path: Path
) -> None:
    """Two local bases of one architecture have equal shapes: unasked, they must not be merged."""
    adapters = (
        named(EXPERTS / DATES[0], tmp_path / "one", base_model_name_or_path=one),
        named(EXPERTS / DATES[1], tmp_path / "other", base_model_name_or_path=other),
    )
    wanted = MergeOptions(adapters, tmp_path / "merged", Strategy.LINEAR)
    if words is None:
        command.run(wanted, None, PlainListener())
        assert load_adapter(tmp_path / "merged").config.base_model_name_or_path == one
        return
    with pytest.raises(InputError, match=re.escape(words)) as refused:
        command.run(wanted, None, PlainListener())
    assert not (tmp_path / "merged").exists()
    if "--base" in str(refused.value):
        vouched = replace(wanted, base=str(BASE))
        assert command.run(vouched, None, PlainListener()).base_model == str(BASE)
        assert peft.PeftConfig.from_pretrained(tmp_path / "merged").base_model_name_or_path == str(
            BASE
        ), "the one of which somebody here has vouched"


def test_revisions_and_locks_tell_bases_apart(tmp_path: Path) -> None:
    name = {"base_model_name_or_path": "meta/llama"}
    for part, expert, revision in (("a", DATES[0], "1" * 40), ("b", DATES[1], "2" * 40)):
        (tmp_path / part).mkdir()
        named(EXPERTS / expert, tmp_path / part / expert, revision=revision, **name)
    adapters = (tmp_path / "a" / DATES[0], tmp_path / "b" / DATES[1])
    wanted = MergeOptions(adapters, tmp_path / "merged", Strategy.LINEAR)
    with pytest.raises(InputError, match=r"revision: is '2+', and '1+'"):
        command.run(wanted, None, PlainListener())
    locked(tmp_path / "a", "a" * 64)
    locked(adapters[1], "d" * 64)
    with pytest.raises(InputError, match=r"soup.lock: base_model_sha: is dddddddddddd…, and aaaa"):
        command.run(wanted, None, PlainListener())
    locked(adapters[1], "a" * 64)
    assert command.run(wanted, None, PlainListener()).base_model == f"meta/llama@{'1' * 40}"
    merged = peft.PeftConfig.from_pretrained(tmp_path / "merged")
    assert (merged.base_model_name_or_path, merged.revision) == ("meta/llama", "1" * 40)


def test_base_by_hand_does_not_make_another_model_fit(tmp_path: Path) -> None:
    adapters = tuple(
        named(EXPERTS / name, tmp_path / name, base_model_name_or_path="meta/llama")
        for name in DATES
    )
    wanted = MergeOptions(adapters, tmp_path / "merged", Strategy.LINEAR, base="google/gemma")
    with pytest.raises(InputError, match="is 'meta/llama', but the base model is 'google/gemma'"):
        command.run(wanted, None, PlainListener())
