"""Soup's eval formats as tasks of ours: its JSONL rows, and its gate YAML.

Formats: Soup 0.7x `eval/custom.py` (`prompt, expected, category, scoring`) and `eval/gate.py`
(`suite, tasks[{type, name, threshold, …}]`). Paths in a gate YAML are relative to the directory
Soup runs in, the repository's root; one that only exists beside the suite is found there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, JsonValue

from adapterbot.eval.data import Row, read_rows
from adapterbot.eval.samples import Plan, as_text
from adapterbot.eval.suite_file import FilePath, TaskSpec
from adapterbot.files.paths import join
from adapterbot.files.tree import Tree
from adapterbot.files.yamlfile import Path, YamlFile, nearest, validate
from adapterbot.records import Finite, Name, Record

# Soup takes a tool call in one shape only, and nothing around it.
_CALL: Mapping[str, JsonValue] = {"extract": False, "shape": "function"}
# Soup's `scoring` names as scorers of ours that give the same score to the same answer, except
# that a tool call without `arguments` is one that gives none, and LaTeX is not rewritten.
SCORING: Mapping[str, Mapping[str, JsonValue]] = {
    "answer": {"name": "answer"},
    "contains": {"name": "contains", "ignore_case": True, "whole_word": True},
    "exact": {"name": "exact", "ignore_case": True},
    "regex": {"name": "regex", "ignore_case": True},
    "semantic": {"name": "token_overlap"},
    "tool_call_args_subset": {"name": "tool_call_credit", **_CALL},
    "tool_call_match": {"name": "tool_call", **_CALL},
    "tool_call_name_match": {"name": "tool_call", "arguments": "ignore", **_CALL},
}
# What Soup's gate tolerates between baseline and candidate unless told otherwise.
REGRESSION_THRESHOLD = 0.05
_NAME_LIMIT = 150  # of a file's name, which leaves room for the scoring's


class GateTask(Record):
    """One task of a gate YAML."""

    type: Literal["judge", "custom", "benchmark"]
    name: Name
    threshold: Annotated[Finite, Field(ge=0.0, le=1000.0)]
    tasks: FilePath | None = None
    scorer: str | None = None
    prompts: FilePath | None = None
    judge_model: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    benchmark: str | None = None


class GateFile(Record):
    """A gate YAML."""

    suite: Name
    tasks: Annotated[tuple[GateTask, ...], Field(min_length=1)]


def is_gate(content: Mapping[str, object]) -> bool:
    """Whether a YAML mapping is a gate of Soup's rather than a suite of ours."""
    return "version" not in content and "suite" in content


def plan_rows(
    name: str,
    rows: Sequence[Row],
    *,
    scoring: str | None = None,
    at: Path = (),
    threshold: float | None = None,
) -> list[Plan]:
    """One task per `scoring` that occurs in the rows, or one for all of them when it is given.

    Raises:
        InputError: a row asks for a scoring that Soup does not know.
    """
    name = name[:_NAME_LIMIT]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        wanted = scoring or as_text(row.values.get("scoring", "exact"))
        if wanted not in SCORING:
            raise row.error(
                f"{wanted!r} is not a scoring of Soup's{nearest(wanted, sorted(SCORING))}",
                fix=f"use one of {', '.join(sorted(SCORING))}",
            )
        groups.setdefault(wanted, []).append(row)
    return [
        Plan(
            TaskSpec(
                name=name if len(groups) == 1 else f"{name}/{wanted}",
                scorer=dict(SCORING[wanted]),
            ),
            tuple(_with_expected(row) for row in group),
            at,
            REGRESSION_THRESHOLD,
            threshold,
        )
        for wanted, group in groups.items()
    ]


def _with_expected(row: Row) -> Row:
    """Soup reads a row without `expected` as one that expects nothing."""
    if "expected" in row.values:
        return row
    return replace(row, values={**row.values, "expected": ""})


def plan_gate(tree: Tree, file: YamlFile) -> list[Plan]:
    """The tasks of a gate YAML.

    Raises:
        InputError: it is malformed, names a file that is not there, or needs what we cannot do.
    """
    gate = validate(GateFile, file, file.content)
    plans: list[Plan] = []
    for index, task in enumerate(gate.tasks):
        at: Path = ("tasks", index)
        if task.name in {other.name for other in gate.tasks[:index]}:
            raise file.error((*at, "name"), f"repeats {task.name!r}", "rename one of them")
        match task.type:
            case "custom":
                plans += _custom(tree, file, task, at)
            case "judge":
                plans.append(_judge(tree, file, task, at))
            case "benchmark":
                raise file.error(
                    (*at, "type"),
                    f"is a benchmark built into Soup ({task.benchmark or 'unnamed'}), "
                    "whose questions are not in this repository",
                    "commit the questions as JSONL and use `type: custom`",
                )
    return plans


def _custom(tree: Tree, file: YamlFile, task: GateTask, at: Path) -> list[Plan]:
    if task.tasks is None:
        raise file.error((*at, "tasks"), "is missing", "name the JSONL file of the task")
    if task.scorer is not None and task.scorer not in SCORING:
        raise file.error(
            (*at, "scorer"),
            f"{task.scorer!r} is not a scorer of Soup's{nearest(task.scorer, sorted(SCORING))}",
            f"use one of {', '.join(sorted(SCORING))}",
        )
    rows = read_rows(tree, _find(tree, file, task.tasks, (*at, "tasks")))
    return plan_rows(task.name, rows, scoring=task.scorer, at=at, threshold=task.threshold)


def _judge(tree: Tree, file: YamlFile, task: GateTask, at: Path) -> Plan:
    if task.prompts is None:
        raise file.error((*at, "prompts"), "is missing", "name the JSONL file of prompts")
    if task.judge_model is None:
        raise file.error((*at, "judge_model"), "is missing", "write ollama://… or https://…")
    scorer = _judge_scorer(task.judge_model)
    if scorer is None:
        raise file.error(
            (*at, "judge_model"),
            f"{task.judge_model!r} is not a judge we can reach",
            "use ollama://MODEL, https://HOST/MODEL or http://localhost:PORT/MODEL",
        )
    rows = read_rows(tree, _find(tree, file, task.prompts, (*at, "prompts")))
    return Plan(
        TaskSpec(name=task.name, scorer=scorer), rows, at, REGRESSION_THRESHOLD, task.threshold
    )


def _judge_scorer(judge_model: str) -> dict[str, JsonValue] | None:
    """Soup's judge URL as options of our `judge`; both serve the OpenAI chat API under /v1."""
    parts = urlsplit(judge_model)
    if parts.scheme == "ollama" and parts.netloc:
        model = judge_model.removeprefix("ollama://")
        return {"name": "judge", "url": "http://localhost:11434/v1", "model": model}
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    base, _, model = judge_model.rpartition("/")
    if not model or not parts.path.strip("/"):
        return None
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        return None
    url = base if base.endswith("/v1") else f"{base}/v1"
    options: dict[str, JsonValue] = {"name": "judge", "url": url, "model": model}
    if parts.hostname == "api.openai.com":
        options["key_env"] = "OPENAI_API_KEY"
    return options


def _find(tree: Tree, file: YamlFile, path: str, at: Path) -> str:
    field = file.place(*at)
    at_root = join("", path, field=field)
    if tree.has(at_root):
        return at_root
    parent = PurePosixPath(file.name).parent.as_posix()
    beside = join("" if parent == "." else parent, path, field=field)
    return beside if tree.has(beside) else at_root
