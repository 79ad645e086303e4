"""`adapterbot pr`: what it reads, what it refuses, and what a reviewer gets to see."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbot.errors import InputError
from adapterbot.pages.figures import Compact
from adapterbot.pr import render
from adapterbot.pr.dataset import read_dataset_diff
from adapterbot.pr.document import (
    Evidence,
    adapter_files,
    branch_of,
    checked_branch,
    checked_sha,
    checked_title,
    document,
    inside,
)
from adapterbot.pr.inputs import read_deltas, read_samples
from adapterbot.records import (
    AdapterPullRequest,
    DatasetDiff,
    Direction,
    EvalDelta,
    FileDiff,
    RowExample,
    SampleChange,
    Standing,
    Unit,
)
from adapterbot.weights import adapter_digest
from tests import command_line
from tests.example import commit, git
from tests.golden.reports import REPORTS

ROOT = Path(__file__).parent.parent.parent
ADAPTER = ROOT / "examples" / "tiny" / "adapters" / "dates"
SEED = [
    {"metric": "judge_score", "baseline": 7.4, "candidate": 8.2},
    {"metric": "retry_rate", "baseline": 0.121, "candidate": 0.046},
]


def put(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def deltas(tmp_path: Path, rows: object) -> tuple[EvalDelta, ...]:
    return read_deltas(put(tmp_path / "eval.json", rows), "adapters/dates")[0]


def a_pull(**more: Any) -> AdapterPullRequest:
    evidence = Evidence(**{"deltas": (), "samples": (), **more})
    return document("A title", "a" * 40, ADAPTER, "adapters/dates", evidence)


def cli(
    *arguments: str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    environment = {**os.environ, "COLUMNS": "40", **(env or {})}
    return command_line.run(*arguments, cwd=cwd, env=environment)


# ---------------------------------------------------------------- the seed's own example


def test_the_table_of_the_announcement(tmp_path: Path) -> None:
    text = render.markdown(a_pull(deltas=deltas(tmp_path, SEED)))
    assert "| `judge_score` | 7.4 | 8.2 | +0.8 | ▲ better |" in text
    assert "| `retry_rate`&nbsp;↓ better | 12.1% | 4.6% | −7.5% | ▲ better |" in text


def test_percent_may_be_written_as_percent(tmp_path: Path) -> None:
    rows = [
        {"metric": "x", "baseline": "12.1%", "candidate": "4.6 %"},
        {"metric": "y", "baseline": 12.1, "candidate": 4.6, "unit": "percent"},
        {"metric": "z", "baseline": 0.121, "candidate": 0.046, "unit": "fraction"},
    ]
    for row in deltas(tmp_path, rows):
        assert row.unit is Unit.FRACTION
        assert (row.baseline, row.candidate) == pytest.approx((0.121, 0.046))


def test_a_rate_above_one_is_no_share_of_anything(tmp_path: Path) -> None:
    (row,) = deltas(tmp_path, [{"metric": "request_rate", "baseline": 3.0, "candidate": 2}])
    assert row.unit is Unit.NUMBER


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("judge_score", Direction.HIGHER),
        ("retry_rate", Direction.LOWER),
        ("toxicity_score", Direction.LOWER),
        ("wikitext/word_perplexity", Direction.LOWER),
        ("brier_score", Direction.LOWER),
        ("verbosity", None),
    ],
)
def test_which_way_is_better(tmp_path: Path, name: str, direction: Direction | None) -> None:
    (row,) = deltas(tmp_path, [{"metric": name, "baseline": 2, "candidate": 3}])
    assert row.direction is direction
    verdict = {Direction.HIGHER: "▲ better", Direction.LOWER: "▼ worse", None: "–"}[direction]
    assert f"| +1 | {verdict} |" in render.markdown(a_pull(deltas=(row,)))


def test_what_the_file_says_of_unit_and_direction_wins(tmp_path: Path) -> None:
    row = {"metric": "retry_rate", "baseline": 0.1, "candidate": 0.2}
    (found,) = deltas(tmp_path, [row | {"direction": "higher", "unit": "number"}])
    assert (found.direction, found.unit) == (Direction.HIGHER, Unit.NUMBER)


def test_a_missing_baseline_is_named_and_never_zero(tmp_path: Path) -> None:
    for row in (
        {"metric": "m", "candidate": 0.9},
        {"metric": "m", "baseline": None, "candidate": 9},
    ):
        (found,) = deltas(tmp_path, [row])
        assert (found.baseline, found.delta) == (None, None)
        text = render.markdown(a_pull(deltas=(found,)))
        assert "| not measured | " in text
        assert "no baseline to compare with" in text
        assert "0.0" not in text.split("<details>")[0]
    (found,) = deltas(tmp_path, [{"metric": "m", "baseline": 0.9}])
    assert "the candidate was not measured" in render.markdown(a_pull(deltas=(found,)))


@pytest.mark.parametrize(
    ("rows", "field", "message"),
    [
        ([{"metric": "m"}], "deltas[0]", "neither a baseline nor a candidate"),
        ([{"baseline": 1, "candidate": 1}], "deltas[0].metric", "is missing"),
        ([{"metric": " ", "baseline": 1}], "deltas[0].metric", "is empty"),
        ([{"metric": "m" * 257, "baseline": 1}], "deltas[0].metric", "257 characters"),
        ([{"metric": "m", "baseline": True}], "deltas[0].baseline", "not a number"),
        ([{"metric": "m", "baseline": "7.4"}], "deltas[0].baseline", "not a number"),
        ([{"metric": "m", "baseline": 10**400}], None, "is too large"),
        ([{"metric": "m", "baseline": "9" * 400 + "%"}], "deltas[0].baseline", "finite"),
        ([{"metric": "m", "baseline": 1, "unit": "km"}], "deltas[0].unit", "not a unit"),
        ([{"metric": "m", "baseline": 1, "direction": "up"}], "deltas[0].direction", "direction"),
        ([3], "deltas[0]", "must be"),
        ([{"metric": "m", "baseline": 1}] * 65, "deltas", "holds 65, more than the 64"),
        ({"rows": []}, None, "holds no `deltas`"),
        ("{", None, "is not JSON"),
        ('[{"metric": "m", "baseline": NaN}]', None, "NaN is not JSON"),
        ('[{"metric": "m", "metric": "n", "baseline": 1}]', None, "is there twice"),
        ("[" * 100_000, None, "nested too deeply"),
        ({"adapters": [{"key": "x"}]}, "tool", "is missing"),
    ],
)
def test_deltas_that_cannot_be_used_are_named(
    tmp_path: Path, rows: object, field: str | None, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        deltas(tmp_path, rows)
    assert message in caught.value.message
    assert caught.value.field == field
    assert caught.value.file == str(tmp_path / "eval.json")
    assert caught.value.fix


def test_sixty_four_deltas_and_two_hundred_fifty_six_samples_fit(tmp_path: Path) -> None:
    assert len(deltas(tmp_path, [{"metric": "m", "baseline": 1}] * 64)) == 64
    sample = {"prompt": "x" * 32768, "baseline_output": "y" * 32768, "candidate_output": ""}
    rows = put(tmp_path / "s.json", [sample] * 256)
    start = time.process_time()
    pull = a_pull(samples=read_samples(rows, "a"))
    assert len(pull.samples) == 256
    text = render.body(pull, "pr:dates", titled=True)
    assert len(text.encode()) <= render.BODY_LIMIT
    assert "Left out to fit" in text
    assert time.process_time() - start < 60  # nothing quadratic


@pytest.mark.parametrize(
    ("rows", "field"),
    [
        ([{"prompt": "p", "baseline_output": "b"}], "samples[0].candidate_output"),
        ([{"prompt": 3, "baseline_output": "", "candidate_output": ""}], "samples[0].prompt"),
        (
            [{"prompt": "p", "baseline_output": "x" * 32769, "candidate_output": ""}],
            "samples[0].baseline_output",
        ),
        ([{"prompt": "p", "baseline_output": "", "candidate_output": ""}] * 257, "samples"),
    ],
)
def test_samples_that_cannot_be_used_are_named(tmp_path: Path, rows: object, field: str) -> None:
    with pytest.raises(InputError) as caught:
        read_samples(put(tmp_path / "s.json", rows), "a")
    assert caught.value.field == field


# ---------------------------------------------------------------- our own files


def test_a_report_of_the_gate_gives_deltas_and_samples(tmp_path: Path) -> None:
    report = REPORTS["regressed"]()
    path = put(tmp_path / "report.json", report.model_dump_json())
    found, _ = read_deltas(path, "adapters/whatever")
    assert [row.metric for row in found] == [m.delta.metric for m in report.adapters[0].metrics]
    assert found[0].interval == report.adapters[0].metrics[0].delta.interval
    assert Standing.REGRESSED in {row.standing for row in found}
    assert len(read_samples(path, "x")) == len(report.adapters[0].samples)
    text = render.markdown(a_pull(deltas=found))
    assert "regressed" in text
    assert "Interval" in text
    assert "Bare differences" not in text


def test_the_section_of_the_adapter_is_taken_from_a_report_of_several(tmp_path: Path) -> None:
    report = REPORTS["several"]()
    path = put(tmp_path / "report.json", report.model_dump_json())
    for section in report.adapters:
        found, _ = read_deltas(path, section.adapter)
        assert len(found) == len(section.metrics)
    with pytest.raises(InputError, match="says nothing of adapters/none"):
        read_deltas(path, "adapters/none")


@pytest.mark.parametrize("option", ["--eval", "--samples"])
def test_a_report_of_other_weights_is_not_shown_beside_these(tmp_path: Path, option: str) -> None:
    report = REPORTS["regressed"]()

    def written(digest: str) -> subprocess.CompletedProcess:
        (section,) = report.adapters
        about = section.model_copy(
            update={"candidate": section.candidate.model_copy(update={"digest": digest})}
        )
        said = report.model_copy(update={"adapters": (about,)})
        path = put(tmp_path / "report.json", said.model_dump_json())
        given = ("--base-sha", "a" * 40, "--adapter", str(ADAPTER), option, str(path))
        return cli("pr", "A title", *given, "-o", "PR.md", cwd=tmp_path)

    refused = written("0" * 64)
    assert refused.returncode == 2
    assert "report.json: adapters/dates: is about the weights 000000000000" in refused.stderr
    assert not (tmp_path / "PR.md").exists()
    assert written(adapter_digest(ADAPTER)).returncode == 0


@pytest.mark.parametrize(
    ("standing", "said"),
    [
        (Standing.REGRESSED, "❌\u00a0regressed"),
        (Standing.OK, "✅\u00a0ok"),
        (Standing.INCONCLUSIVE, "⚠️\u00a0inconclusive"),
        (Standing.INFORMATIVE, "not gated"),
    ],
)
def test_a_standing_is_said_in_the_words_of_the_gate(standing: Standing, said: str) -> None:
    delta = EvalDelta(metric="m", baseline=0.5, candidate=0.25, standing=standing)
    (row,) = (
        line for line in render.markdown(a_pull(deltas=(delta,))).split("\n") if "`m`" in line
    )
    assert row.endswith(f"| {said} |")


def test_more_metrics_than_a_document_holds_keep_the_worst(tmp_path: Path) -> None:
    base = REPORTS["regressed"]()
    section = base.adapters[0]
    many = section.model_copy(update={"metrics": section.metrics * 30})
    report = base.model_copy(update={"adapters": (many,)})
    found, notes = read_deltas(put(tmp_path / "r.json", report.model_dump_json()), "x")
    assert len(found) == 64
    worse = sum(m.standing is Standing.REGRESSED for m in many.metrics)
    assert sum(row.standing is Standing.REGRESSED for row in found) == min(worse, 64)
    assert notes == (f"{len(many.metrics) - 64} more metrics are in the report",)


def test_what_we_write_we_read(tmp_path: Path) -> None:
    report = put(tmp_path / "report.json", REPORTS["regressed"]().model_dump_json())
    pull = a_pull(
        deltas=(*read_deltas(report, "x")[0], *deltas(tmp_path, SEED)),
        samples=(SampleChange(prompt="##[error]p", baseline_output="b", candidate_output="c"),),
    )
    text = render.json_text(pull)
    assert "##[" not in text  # a command of the runner, wherever it stands
    written = json.loads(text)
    assert written["version"] == 1
    assert {"title", "base_sha", "dataset_diff", "deltas", "samples"} <= written.keys()
    assert written["deltas"][-1]["delta"] == pytest.approx(-0.075)
    path = put(tmp_path / "ours.json", text)
    assert read_deltas(path, "x")[0] == pull.deltas
    assert read_samples(path, "x") == pull.samples


def test_ours_validates_against_the_published_schema(tmp_path: Path) -> None:
    import jsonschema

    schema = json.loads((ROOT / "docs/schemas/adapter-pr-v1.schema.json").read_text())
    pull = a_pull(deltas=deltas(tmp_path, [*SEED, {"metric": "m", "candidate": 1}]))
    jsonschema.validate(json.loads(render.json_text(pull)), schema)


def test_text_that_a_model_cut_in_half_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(
        '[{"prompt": "\\ud83d", "baseline_output": "\\ud83d\\ude00", "candidate_output": ""}]'
    )
    (sample,) = read_samples(path, "a")
    assert (sample.prompt, sample.baseline_output) == ("\ufffd", "😀")


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_bytes(b'[{"prompt": "\xff"}]')
    with pytest.raises(InputError, match="is not UTF-8 at byte 13"):
        read_samples(tmp_path / "s.json", "a")


# ---------------------------------------------------------------- figures


@pytest.mark.parametrize(
    ("unit", "values", "written"),
    [
        (Unit.NUMBER, (7.4, 8.2), ("7.4", "8.2", "+0.8")),
        (Unit.NUMBER, (7, 8), ("7", "8", "+1")),
        (Unit.NUMBER, (0.00012, 0.0001), ("0.00012", "0.00010", "−0.00002")),
        (Unit.NUMBER, (1e9, 2e9), ("1.00·10^9", "2.00·10^9", "+1.00·10^9")),
        (Unit.FRACTION, (0.121, 0.046), ("12.1%", "4.6%", "−7.5%")),
        (Unit.FRACTION, (0.9, 0.9), ("90.0%", "90.0%", "0.0%")),
        (Unit.FRACTION, (0.9, 0.9004), ("90.00%", "90.04%", "+0.04%")),
    ],
)
def test_compact_figures(unit: Unit, values: tuple[float, float], written: tuple[str, ...]) -> None:
    scale = Compact.of(unit, *values)
    assert (*map(scale.level, values), scale.change(values[1] - values[0])) == written


@given(st.sampled_from(Unit), st.floats(allow_nan=False, allow_infinity=False),
       st.floats(allow_nan=False, allow_infinity=False))  # fmt: skip
def test_a_difference_is_never_written_as_none_nor_with_the_wrong_sign(
    unit: Unit, a: float, b: float
) -> None:
    scale = Compact.of(unit, a, b)
    assert len(scale.level(a)) < 40
    change = b - a
    if not abs(change) < float("inf"):
        return
    shown = scale.change(change)
    assert "-" not in shown
    assert ("−" in shown) <= (change < 0)
    assert ("+" in shown) <= (change > 0)


# ---------------------------------------------------------------- the adapter, the title, the SHA


def test_weights_are_listed_with_digests_and_strays_are_left_out(tmp_path: Path) -> None:
    import hashlib
    import shutil

    adapter = tmp_path / "dates"
    shutil.copytree(ADAPTER, adapter)
    (adapter / "training_args.bin").write_bytes(b"\x80\x04pickle")
    (adapter / "OPTIMIZER.PT").write_bytes(b"")
    (adapter / ".DS_Store").write_bytes(b"")
    (adapter / "checkpoint-10").mkdir()
    pull = document("t", "A" * 64, adapter, "adapters/dates", Evidence())
    assert [file.name for file in pull.adapter.files] == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    weights = (adapter / "adapter_model.safetensors").read_bytes()
    assert pull.adapter.files[1].sha256 == hashlib.sha256(weights).hexdigest()
    assert pull.base_sha == "a" * 64
    assert pull.notes == (
        "pickles left out: OPTIMIZER.PT, training_args.bin",
        "folders left out: checkpoint-10",
    )
    text = render.markdown(pull)
    assert pull.adapter.files[1].sha256 in text
    assert "a" * 64 in text


def test_a_link_or_an_unprintable_name_in_the_adapter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a\u202eb.json").touch()
    with pytest.raises(InputError, match="cannot be printed"):
        adapter_files(tmp_path, "x")
    (tmp_path / "a\u202eb.json").unlink()
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match="symbolic link"):
        adapter_files(tmp_path, "x")


@pytest.mark.parametrize("sha", ["9f2e", "g" * 40, "a" * 41, "", "a" * 40 + "\n|x"])
def test_a_sha_is_whole_or_refused(sha: str) -> None:
    with pytest.raises(InputError, match="is not a SHA"):
        checked_sha(sha)


def test_titles_are_one_line() -> None:
    assert checked_title("  two\n\nlines\t ") == "two lines"
    assert checked_title("\ud800x") == "\ufffdx"
    for title in ("", " \n", "x" * 257):
        with pytest.raises(InputError):
            checked_title(title)


@given(st.text(min_size=1))
def test_every_path_has_a_branch_that_git_takes(path: str) -> None:
    assert checked_branch(branch_of(path)).startswith("adapterbot/")


@pytest.mark.parametrize(
    "name",
    ["-x", "a..b", "a//b", "a/.b", "x.lock", "a/b.lock/c", "x/", "x.", "", "a b", "a\nb", "@{-1}",
     "refs~1", "a:b", "x" * 201, "ü"],
)  # fmt: skip
def test_branch_names_that_mean_something_else_are_refused(name: str) -> None:
    with pytest.raises(InputError):
        checked_branch(name)


def test_where_the_adapter_goes(tmp_path: Path) -> None:
    (tmp_path / "adapters" / "a").mkdir(parents=True)
    assert inside(tmp_path / "adapters" / "a", tmp_path, None) == "adapters/a"
    assert inside(Path("/elsewhere"), tmp_path, "./adapters/b/") == "adapters/b"
    for given_path in (None, "../x", "/etc", ".", ".git/hooks"):
        with pytest.raises(InputError):
            inside(Path("/elsewhere"), tmp_path, given_path)


# ---------------------------------------------------------------- the dataset diff


def test_a_dataset_diff_from_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    rows = [{"prompt": f"p{i}", "expected": str(i)} for i in range(9)]
    data = tmp_path / "data" / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "soup.yaml").write_text("base: ./base\ndata: {train: ./data/train.jsonl}\n")

    git(tmp_path, "init", "-q", "-b", "main")
    commit(tmp_path, "old")
    old = tmp_path / "old.jsonl"
    old.write_text(data.read_text())
    data.write_text("".join(json.dumps(row) + "\n" for row in [*rows[1:], {"prompt": "new"}]))
    commit(tmp_path, "new")
    monkeypatch.chdir(tmp_path)
    between = read_dataset_diff(["HEAD~1..HEAD"], "soup.yaml")
    paths = read_dataset_diff([str(old), str(data)], "soup.yaml")
    assert isinstance(between, DatasetDiff)
    assert isinstance(paths, DatasetDiff)
    assert between.summary == paths.summary
    saved = put(tmp_path / "diff.json", between.model_dump_json())
    assert read_dataset_diff([str(saved)], "soup.yaml") == between
    text = put(tmp_path / "diff.txt", "+ 1 row\n- 1 row")
    assert read_dataset_diff([str(text)], "soup.yaml") == "+ 1 row\n- 1 row"
    for wrong in (["nothing"], ["nope..HEAD"], ["a", "b", "c"]):
        with pytest.raises(InputError):
            read_dataset_diff(wrong, "soup.yaml")


def test_rows_that_changed_are_shown() -> None:
    diff = DatasetDiff(
        added=1,
        removed=1,
        changed=1,
        files=(
            FileDiff(file="a.jsonl", rows_before=9, rows_after=9, added=1, removed=1, changed=1),
        ),
        added_rows=(RowExample(file="a.jsonl", line=9, after="new ``` row"),),
        removed_rows=(RowExample(file="a.jsonl", line=2, before="old row"),),
        changed_rows=(RowExample(file="a.jsonl", line=3, before="was", after="is"),),
    )
    text = render.markdown(a_pull(dataset_diff=diff))
    assert diff.summary in text
    assert "| `a.jsonl` | 9 | 9 | 1 | 1 | 1 |" in text
    assert (
        "@@ a.jsonl:3 @@\n-was\n+is\n@@ a.jsonl:2 @@\n-old row\n@@ a.jsonl:9 @@\n+new ```" in text
    )


def test_the_example_of_the_docs_is_what_comes_out(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "pr.md").read_text("utf-8")
    shown = dict(re.findall(r"<!-- example: (\w+) -->\n```\w+\n(.*?)```", page, re.DOTALL))
    path = put(tmp_path / "eval.json", shown["deltas"])
    assert shown["table"] in render.markdown(a_pull(deltas=read_deltas(path, "x")[0]))


# ---------------------------------------------------------------- body and budget


@pytest.mark.parametrize("limit", [2_000, 5_000, 20_000])
def test_every_limit_is_kept(tmp_path: Path, limit: int) -> None:
    long = "\u202e|`@acme\n" * 400
    pull = a_pull(
        deltas=deltas(
            tmp_path, [{"metric": f"m{i}", "baseline": 1, "candidate": 2} for i in range(64)]
        ),
        samples=tuple(SampleChange(prompt=long, baseline_output=long) for _ in range(40)),
        dataset_diff=long,
    )
    text = render.body(pull, "pr:dates", titled=False, limit=limit)
    assert len(text.encode()) <= limit
    assert "Left out to fit" in text


def test_what_people_wrote_around_our_part_of_a_body_stays() -> None:
    first = render.body(a_pull(), "pr:dates", titled=False)
    second = first.replace("40,960", "50,000")
    assert second != first
    assert render.merged_body(second, first) == second
    edited = f"Please read this first.\r\n\r\n{first}\r\nFixes a thing.\n"
    merged = render.merged_body(second, edited)
    assert merged.startswith("Please read this first.\n\n")
    assert merged.endswith("\nFixes a thing.\n")
    assert second in merged
    assert first not in merged
    assert render.merged_body(second, merged) == merged
    assert render.merged_body(second, "by hand") == second + "\nby hand"


# ---------------------------------------------------------------- the command


def test_the_command_as_in_the_announcement(tmp_path: Path) -> None:
    put(tmp_path / "eval_delta.json", SEED)
    put(tmp_path / "sample_diffs.json",
        [{"prompt": "p", "baseline_output": "a" * 200, "candidate_output": "b"}])  # fmt: skip
    given = [
        "pr", "Better politeness on EU support tickets", "--base-sha", "9f2e" * 16,
        "--adapter", str(ADAPTER), "--eval", "eval_delta.json", "--samples", "sample_diffs.json",
    ]  # fmt: skip
    done = cli(*given, "--output", "PR.md", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "PR.md\n", "")
    text = (tmp_path / "PR.md").read_text()
    assert text.startswith("# Better politeness on EU support tickets\n")
    assert "12.1% | 4.6% | −7.5%" in text
    shown = cli(*given, cwd=tmp_path)
    assert shown.stdout == text  # not wrapped at the terminal's 40 columns
    assert json.loads(cli(*given, "--format", "json", cwd=tmp_path).stdout)["version"] == 1
    assert json.loads(cli(*given, "--json", cwd=tmp_path).stdout)["version"] == 1
    options_first = [given[0], *given[2:], given[1]]
    assert cli(*options_first, cwd=tmp_path).stdout == text


def test_bad_input_leaves_nothing_behind(tmp_path: Path) -> None:
    put(tmp_path / "e.json", [{"metric": "m"}])
    done = cli("pr", "t", "--base-sha", "a" * 40, "--adapter", str(ADAPTER), "--eval", "e.json",
               "-o", "PR.md", "--json", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["field"] == "deltas[0]"
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "PR.md").exists()


def test_a_model_that_writes_workflow_commands_gives_none_in_a_log(tmp_path: Path) -> None:
    put(tmp_path / "d.txt", "::set-env name=PATH::/tmp\n##[add-path]/tmp")
    given = [
        "pr",
        "t",
        "--base-sha",
        "a" * 40,
        "--adapter",
        str(ADAPTER),
        "--dataset-diff",
        "d.txt",
    ]
    log = cli(*given, cwd=tmp_path, env={"GITHUB_ACTIONS": "true"}).stdout
    first, last = log.splitlines()[0], log.splitlines()[-1]
    assert first.startswith("::stop-commands::")
    assert last == f"::{first.removeprefix('::stop-commands::')}::"
