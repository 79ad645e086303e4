"""What the commands decide by themselves, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from adapterbot import delta
from adapterbot.commands import evaluate, gate_report
from adapterbot.commands.evaluator import cache_directory, checkpoints_directory
from adapterbot.commands.notes import problem_note
from adapterbot.errors import InputError
from adapterbot.eval.suite import load_suite
from adapterbot.files.tree import WorkTree
from adapterbot.records import AdapterRef, SampleScore
from adapterbot.records.report import Problem


def test_results_of_several_adapters_never_share_a_file() -> None:
    paths = ["runs/a.3", "runs/a", "runs/a", "runs/a", "runs/a.2"]
    names = evaluate._file_names([AdapterRef(label=path, path=path) for path in paths])
    assert names[:2] == ["runs-a.3", "runs-a"]
    assert len(set(names)) == len(paths)


def test_a_mean_is_to_the_digit_what_a_gate_shows(tmp_path: Path) -> None:
    """Summed otherwise, the last digit of `eval --json` is another than that of report.json."""
    (tmp_path / "suite.yaml").write_text(
        "version: 1\ntasks: [{name: free, data: d.jsonl, scorer: rouge_l, margin: 0.1}]\n"
    )
    (tmp_path / "d.jsonl").write_text('{"prompt": "a", "expected": "b"}\n')
    suite = load_suite(WorkTree(tmp_path), "suite.yaml")
    scores = [SampleScore(sample_id=str(i), score=i / 10) for i in (1, 2, 3)]
    results = (suite.tasks[0].result(scores),)
    (found,) = evaluate.task_means(suite, results)
    (gated,) = delta.compare_all(results, results)
    assert found.mean == gated.delta.baseline


@pytest.mark.parametrize("scorer", ["rouge_l", "bleu"])  # by sample, and of the whole corpus
def test_a_task_without_a_score_has_no_mean(tmp_path: Path, scorer: str) -> None:
    """The mistake: statistics of no sample were given a shape that numpy refuses, which ended
    `eval` as a crash where every prompt is longer than the model's context."""
    (tmp_path / "suite.yaml").write_text(
        f"version: 1\ntasks: [{{name: free, data: d.jsonl, scorer: {scorer}, margin: 0.1}}]\n"
    )
    (tmp_path / "d.jsonl").write_text('{"prompt": "a", "expected": "b"}\n')
    suite = load_suite(WorkTree(tmp_path), "suite.yaml")
    lost = SampleScore(sample_id="1", score=None, missing="the prompt is too long")
    (found,) = evaluate.task_means(suite, (suite.tasks[0].result([lost]),))
    assert (found.mean, found.missing) == (None, 1)


def test_a_traceback_shows_no_key_whatever_its_variable_is_called() -> None:
    secrets = {
        "GITHUB_TOKEN": "ghs_1234567",
        "ADAPTERBOT_SERVER_KEY": "sk-server",
        "HF_TOKEN": "hf_abcdef",
        "MY_JUDGE_API_KEY": " sk-judge-7\n",
    }
    quoted = "POST failed: " + ", ".join(value.strip() for value in secrets.values())
    switches = {"TOKENIZERS_PARALLELISM": "false", "SHELL": "/bin/sh"}
    shown = gate_report._without_secrets(f"{quoted}, false, /bin/sh", {**secrets, **switches})
    assert shown == "POST failed: ***, ***, ***, ***, false, /bin/sh"


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("tasks[2].margin (line 17)", 17),
        ("line 3", 3),
        ("inline 3", None),
        (f"line {'9' * 400}", None),  # what a stranger's report may say
        (None, None),
    ],
)
def test_an_error_stands_on_its_line_where_it_names_one(
    field: str | None, line: int | None
) -> None:
    problem = Problem(kind="bad_input", message="is odd", file="suite.yaml", field=field)
    assert problem_note(problem, "suite").line == line


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number of which its passwd knows nothing."""

    def nobody(_: int) -> NoReturn:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.delenv("HOME")
    for kept in (cache_directory, checkpoints_directory):
        with pytest.raises(InputError, match=r"^HOME: .* \(set it, or ADAPTERBOT_CACHE\)"):
            kept({})
        assert kept({"ADAPTERBOT_CACHE": "/kept"}).is_relative_to("/kept")
