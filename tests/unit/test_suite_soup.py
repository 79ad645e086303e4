"""Soup's eval files load as they are, and the scores are Soup's."""

import json
import textwrap

import pytest

from adapterbot.errors import InputError
from adapterbot.eval import scorers
from adapterbot.eval.answers import Answer
from adapterbot.eval.suite import load_suite
from adapterbot.files.tree import WorkTree

CALL = '{"function": {"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}}'


@pytest.fixture
def load(tmp_path):
    def run(path, **files):
        for name, content in files.items():
            target = tmp_path / name.replace("__", ".").replace("_in_", "/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, list):
                content = "".join(json.dumps(row) + "\n" for row in content)
            target.write_text(textwrap.dedent(content), encoding="utf-8")
        return load_suite(WorkTree(tmp_path), path)

    return run


def test_rows_are_grouped_by_their_scoring(load):
    suite = load(
        "checks.jsonl",
        checks__jsonl=[
            {"prompt": "a", "expected": "x", "category": "c", "source": "s"},
            {"prompt": "b", "expected": "y", "scoring": "contains"},
            {"prompt": "c", "expected": 4, "scoring": "exact"},
        ],
    )
    exact, contains = suite.tasks
    assert (exact.name, contains.name) == ("checks/exact", "checks/contains")
    assert [s.prompt for s in exact.samples] == ["a", "c"]
    assert [s.slice for s in exact.samples] == ["c", None]
    assert exact.samples[1].expected == "4"
    assert exact.scorer_options == {"ignore_case": True}


# (scoring, expected, output, Soup's score): worked out from Soup's documentation of each.
SCORES = [
    ("exact", "Paris", " paris\n", 1),
    ("exact", "4", "The answer is 4.", 0),
    ("contains", "4", "It is 4.", 1),
    ("contains", "4", "It is 14.", 0),
    ("contains", "Paris", "(PARIS)", 1),
    ("regex", r"\bpar[iy]s\b", "in PARYS", 1),
    ("regex", r"^paris$", "in Paris", 0),
    ("semantic", "the red fox", "The quick red fox", 0.75),
    ("semantic", "a b", "c d", 0),
    ("answer", "42", "6*7 = 42, so the answer is 42.", 1),
    ("answer", "6*7=42\n#### 42", r"\boxed{42.0}", 1),
    ("answer", "42", "The answer is either 41 or 42.", 0),
    ("answer", "1,000", "#### 1000", 1),
    ("answer", "Paris", "Answer: paris", 1),
    ("answer", "42", "I count 40, then 42", 1),
    ("answer", "42", "#### 42\nActually the answer is 41", 0),
    ("tool_call_match", CALL, CALL.replace("2", "2.0"), 1),
    ("tool_call_match", CALL, CALL.replace("2", "3"), 0),
    ("tool_call_match", CALL, f"```json\n{CALL}\n```", 0),
    ("tool_call_name_match", CALL, '{"function": {"name": "get_weather", "arguments": {}}}', 1),
    ("tool_call_name_match", CALL, '{"function": {"name": "get_time", "arguments": {}}}', 0),
    (
        "tool_call_args_subset",
        CALL,
        '{"function": {"name": "get_weather", "arguments": {"days": 2}}}',
        0.75,
    ),
    ("tool_call_args_subset", CALL, '{"function": {"name": "x", "arguments": {"days": true}}}', 0),
    ("tool_call_args_subset", CALL, "no", 0),
]


@pytest.mark.parametrize(("scoring", "expected", "output", "score"), SCORES)
def test_scores_are_those_of_soup(load, scoring, expected, output, score):
    row = {"prompt": "p", "expected": expected, "scoring": scoring}
    (task,) = load("rows.jsonl", rows__jsonl=[row]).tasks
    scorer = scorers.get(task.scorer, task.scorer_options)
    assert scorer.score(task.samples[0], Answer(text=output)).score == pytest.approx(score)


def test_gate_yaml(load):
    suite = load(
        "evals/gate.yaml",
        evals_in_gate__yaml="""
            suite: smoke
            tasks:
              - {type: custom, name: dates, threshold: 0.8, tasks: evals/rows.jsonl,
                 scorer: contains}
              - {type: custom, name: mixed, threshold: 0.5, tasks: rows.jsonl}
              - {type: judge, name: tone, threshold: 0.6, prompts: evals/rows.jsonl,
                 judge_model: "http://localhost:8000/Qwen2.5"}
        """,
        evals_in_rows__jsonl=[
            {"prompt": "a", "expected": "x"},
            {"prompt": "b", "expected": "y", "scoring": "regex"},
        ],
    )
    dates, exact, regex, tone = suite.tasks
    assert [t.name for t in suite.tasks] == ["dates", "mixed/exact", "mixed/regex", "tone"]
    assert (dates.scorer, dates.threshold, dates.margin) == ("contains", 0.8, 0.05)
    assert len(dates.samples) == 2
    assert (exact.threshold, regex.scorer) == (0.5, "regex")
    assert tone.scorer_options == {"url": "http://localhost:8000/v1", "model": "Qwen2.5"}


def test_names_that_meet_when_they_are_cut_are_refused(load):
    """Two tasks of one name would be paired with each other's scores."""
    long = "x" * 160
    with pytest.raises(InputError, match="makes two tasks named"):
        load(
            "gate.yaml",
            gate__yaml=f"""
                suite: smoke
                tasks:
                  - {{type: custom, name: {long}1, threshold: 0.8, tasks: rows.jsonl}}
                  - {{type: custom, name: {long}2, threshold: 0.8, tasks: rows.jsonl}}
            """,
            rows__jsonl=[{"prompt": "a", "expected": "x"}],
        )


@pytest.mark.parametrize(
    ("judge", "options"),
    [
        ("ollama://llama3.1", {"url": "http://localhost:11434/v1", "model": "llama3.1"}),
        (
            "https://api.openai.com/gpt-4o-mini",
            {
                "url": "https://api.openai.com/v1",
                "model": "gpt-4o-mini",
                "key_env": "OPENAI_API_KEY",
            },
        ),
        ("https://judge.example.com/v1/m", {"url": "https://judge.example.com/v1", "model": "m"}),
    ],
)
def test_a_judge_model_is_split_into_address_and_model(load, judge, options):
    (task,) = load(
        "gate.yaml",
        gate__yaml=f"""
            suite: s
            tasks:
              - {{type: judge, name: j, threshold: 0, prompts: p.jsonl, judge_model: "{judge}"}}
        """,
        p__jsonl=[{"prompt": "a"}],
    ).tasks
    assert task.scorer_options == options


REFUSED = {
    "benchmark": (
        "{type: benchmark, name: a, threshold: 0, benchmark: mini_mmlu}",
        "tasks[0].type (line 2)",
        "mini_mmlu",
    ),
    "unknown type": ("{type: lm, name: a, threshold: 0}", "tasks[0].type (line 2)", "'custom'"),
    "no threshold": ("{type: custom, name: a, tasks: r.jsonl}", "tasks[0].threshold", "missing"),
    "no tasks": ("{type: custom, name: a, threshold: 0}", "tasks[0].tasks (line 2)", "missing"),
    "unknown scorer": (
        "{type: custom, name: a, threshold: 0, tasks: r.jsonl, scorer: exat}",
        "tasks[0].scorer (line 2)",
        "did you mean 'exact'?",
    ),
    "no prompts": ("{type: judge, name: a, threshold: 0}", "tasks[0].prompts", "missing"),
    "no judge": (
        "{type: judge, name: a, threshold: 0, prompts: r.jsonl}",
        "tasks[0].judge_model",
        "missing",
    ),
    "judge elsewhere": (
        "{type: judge, name: a, threshold: 0, prompts: r.jsonl, judge_model: 'http://x.org/m'}",
        "tasks[0].judge_model",
        "not a judge we can reach",
    ),
    "name twice": (
        ", ".join(["{type: custom, name: a, threshold: 0, tasks: r.jsonl}"] * 2),
        "tasks[1].name",
        "repeats 'a'",
    ),
    "path escapes": (
        "{type: custom, name: a, threshold: 0, tasks: ../r.jsonl}",
        "tasks[0].tasks",
        "leaves the repository",
    ),
    "missing file": ("{type: custom, name: a, threshold: 0, tasks: n.jsonl}", "", "does not exist"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_by_name(load, case):
    task, field, message = REFUSED[case]
    with pytest.raises(InputError) as caught:
        load(
            "gate.yaml",
            gate__yaml=f"suite: s\ntasks: [{task}]\n",
            r__jsonl=[{"prompt": "a", "expected": "b"}],
        )
    assert message in str(caught.value)
    assert field in (caught.value.field or "")
    assert caught.value.fix


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "expected": "b", "scoring": "exat"}, "did you mean 'exact'?"),
        ({"prompt": "a", "expected": "(", "scoring": "regex"}, "not a regular expression"),
        ({"prompt": "a", "expected": "41 or 42\nmaybe", "scoring": "answer"}, "no single answer"),
        ({"prompt": "a", "expected": "no call", "scoring": "tool_call_match"}, "no tool call"),
        ({"expected": "b"}, "has no `prompt`"),
    ],
)
def test_rows_that_cannot_be_scored(load, row, message):
    with pytest.raises(InputError) as caught:
        load("rows.jsonl", rows__jsonl=[row])
    assert message in str(caught.value)
    assert (caught.value.file, caught.value.field) == ("rows.jsonl", "line 1")
