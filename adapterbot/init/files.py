"""The files that a repository lacks, written in full, and what to do once they are there."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import yaml

from adapterbot import config as configs
from adapterbot.config import AdapterConfig, key_of
from adapterbot.errors import AdapterbotError
from adapterbot.eval.suite import load_suite
from adapterbot.files.paths import join
from adapterbot.files.tree import Tree, WorkTree
from adapterbot.init.held_out import HeldOut, held_out
from adapterbot.init.scoring import Scoring, scoring_for
from adapterbot.init.survey import Survey, data_files, survey
from adapterbot.init.workflow import workflow
from adapterbot.lock import sidecar
from adapterbot.lock.training import TrainingConfig

WORKFLOW = ".github/workflows/adapter-gate.yml"
HELD_OUT = "held_out.jsonl"
MARGIN = 0.05
_SHOWN = {"path", "config", "lock", "suite", "archive"}
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
_CONFIG_HEAD = """\
# What is gated, and with what. What counts as a finding is the suite's to say, or `policy:` here;
# both are read from the base branch, so that no pull request loosens its own gate.
"""
_SUITE_HEAD = """\
# A starter: {source}.
# The scorer is {scorer}, since {reason}. It is ok once a drop of
# `margin` is ruled out; any certain drop of at least `least_effect` (0) is a regression.
"""


@dataclass(frozen=True)
class Wanted:
    """What the user decides. `was` is the tag that the action's commit was found under; `force`
    replaces a workflow, which holds nothing but these answers."""

    runs_on: tuple[str, ...]
    action: str
    was: str = ""
    force: bool = False


@dataclass
class Planned:
    """The files to write, by path, and what to say about them.

    Attributes:
        kept: files that are there already and stay as they are.
        held_out: the suite that was made, by path, with where its rows are from.
        notes: what the user should know, a line each.
        commands: what to run next, in order.
        made: the files and folders that they make.
    """

    survey: Survey
    files: dict[str, bytes] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    held_out: dict[str, HeldOut] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)


def plan(tree: Tree, names: Sequence[str], wanted: Wanted, gate: str = WORKFLOW) -> Planned:
    """Everything that `adapterbot init` would do. Reads; writes nothing.

    Args:
        names: the repository's files, without what Git ignores.
        gate: the workflow that judges pull requests; one of another name is somebody's, and stays.

    Raises:
        InputError: it holds no adapter, an option is malformed, or the configuration that stays is.
    """
    present = [name for name in configs.CONFIG_FILES if tree.has(name)]
    config = present[0] if present else configs.CONFIG_FILES[0]
    stays = configs.load(tree.read(config), config) if present else None
    found = survey(tree, names, stays)
    planned = Planned(found, notes=list(found.notes))
    for adapter in found.adapters:
        _suite(tree, adapter, planned)
    steps = workflow(
        runs_on=wanted.runs_on, action=wanted.action, was=wanted.was, lfs=found.uses_lfs
    )
    written = {} if present else {config: _config(found.adapters)}
    ours = wanted.force and gate == WORKFLOW
    if not tree.has(gate) or (ours and tree.read(gate) != steps.encode()):
        written[gate] = steps.encode()
    planned.files |= written
    planned.kept += [name for name in (config, gate) if name not in written]
    planned.commands = list(_locking(tree, planned))
    return planned


def _config(adapters: Sequence[AdapterConfig]) -> bytes:
    entries = [
        adapter.model_dump(
            # A key is told where the path does not give it.
            include=_SHOWN if adapter.key == key_of(adapter.path) else {*_SHOWN, "key"},
            exclude_none=True,
        )
        for adapter in adapters
    ]
    body = yaml.safe_dump({"version": 1, "adapters": entries}, sort_keys=False)
    content = (_CONFIG_HEAD + body).encode()
    configs.load(content, configs.CONFIG_FILES[0])
    return content


# ---------------------------------------------------------------- the suite


def _suite(tree: Tree, adapter: AdapterConfig, planned: Planned) -> None:
    """Plan a suite for one adapter, unless it has one or shares another's."""
    if tree.has(adapter.suite):
        if adapter.suite not in planned.kept:
            planned.kept.append(adapter.suite)
        return
    if adapter.suite in planned.files:
        return
    training = planned.survey.training.get(adapter.config)
    if training is None:
        planned.notes.append(f"{adapter.suite} is still to be written: no training data is known")
        return
    try:
        chat = _has_chat_template(tree, training)
        rows = held_out(tree, training, chat=chat, changed=planned.files)
    except AdapterbotError as error:
        planned.notes.append(f"{adapter.suite} is still to be written: {error}")
        return
    data = (PurePosixPath(adapter.suite).parent / HELD_OUT).as_posix()
    if tree.has(data):
        planned.notes.append(f"{adapter.suite} is still to be written: {data} is in the way")
        return
    files = {
        data: "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows.rows).encode(),
        adapter.suite: _suite_text(rows, scoring_for(rows.answers)).encode(),
    }
    _check(files, adapter.suite)
    planned.held_out[adapter.suite] = rows
    planned.files.update(files)
    planned.files.update(rows.rest)
    planned.notes += _about(rows, adapter)
    planned.notes += [f"copies of held-out rows may stay in it: {why}" for why in rows.unread]


def _has_chat_template(tree: Tree, training: TrainingConfig) -> bool:
    """Whether rows can be asked as chats; a model that is not in this repository is taken at its
    word, as instruction-tuned ones have a template."""
    try:
        base = join(training.directory, training.base)
        local = tree.has(f"{base}/config.json")
    except AdapterbotError:
        return True
    if not local or any(tree.has(f"{base}/{name}") for name in _TEMPLATE_FILES):
        return True
    settings = f"{base}/tokenizer_config.json"
    return tree.has(settings) and b'"chat_template"' in tree.read(settings)


def _suite_text(rows: HeldOut, scoring: Scoring) -> str:
    generation: dict[str, object] = {"max_new_tokens": scoring.max_new_tokens}
    if scoring.stop:
        generation["stop"] = list(scoring.stop)
    task = {
        "name": "held_out",
        "data": HELD_OUT,
        "scorer": scoring.scorer,
        "margin": MARGIN,
        **({"slice": rows.slice} if rows.slice else {}),
        "generation": generation,
    }
    source = (
        f"{len(rows.rows)} questions that were moved out of {', '.join(rows.rest)}"
        if rows.rest
        else f"{len(rows.rows)} questions of {', '.join(rows.sources)}"
    )
    scorer = scoring.scorer if isinstance(scoring.scorer, str) else str(scoring.scorer["name"])
    head = _SUITE_HEAD.format(source=source, scorer=scorer, reason=scoring.reason)
    # JSON is YAML, and shows a line break in `stop` as what it is.
    fields = [f"{key}: {json.dumps(value)}" for key, value in task.items()]
    return f"{head}version: 1\ntasks:\n  - " + "\n    ".join(fields) + "\n"


def _check(files: Mapping[str, bytes], suite: str) -> None:
    """What we write loads, or is not written."""
    with tempfile.TemporaryDirectory(prefix="adapterbot-init-") as folder:
        for name, content in files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        load_suite(WorkTree(Path(folder)), suite)


def _about(rows: HeldOut, adapter: AdapterConfig) -> Iterator[str]:
    if not rows.rest:
        yield f"{adapter.suite}: {len(rows.rows)} questions of {', '.join(rows.sources)}"
        return
    yield (
        f"{adapter.suite}: {rows.moved} rows ({len(rows.rows)} questions) were chosen by a hash of "
        f"their question and moved out of {', '.join(rows.rest)}; "
        f"{rows.questions_left} questions stay to train on"
    )
    yield f"{adapter.path} has seen those rows; they are held out from its next training on"


# ---------------------------------------------------------------- what then


def _locking(tree: Tree, planned: Planned) -> Iterator[str]:
    """The commands that write the locks, in the order in which to run them."""
    done: set[str] = set()
    moved = {name for rows in planned.held_out.values() for name in rows.rest}
    for adapter in planned.survey.adapters:
        training = planned.survey.training.get(adapter.config)
        if training is None or adapter.lock in done:
            continue
        done.add(adapter.lock)
        if tree.has(adapter.lock) and moved & data_files(training):
            planned.notes.append(
                f"{adapter.lock} pins the data as it was: the gate calls that a drift until the "
                "next training is locked"
            )
        elif not tree.has(adapter.lock):
            environment = join(training.directory, "soup-env.lock")
            if not tree.has(environment):
                yield _with("adapterbot env lock", "-o", environment, "soup-env.lock")
                planned.made.append(environment)
                planned.notes.append(
                    f"{environment} describes the Python that writes it: run `adapterbot env lock` "
                    "where adapters are trained, or give it --from uv.lock"
                )
            command = _with("adapterbot lock write", "--config", adapter.config, "soup.yaml")
            yield _with(command, "-o", adapter.lock, "soup.lock")
            planned.made += [adapter.lock, sidecar.folder(adapter.lock)]


def _with(command: str, option: str, value: str, usual: str) -> str:
    return command if value == usual else f"{command} {option} {shlex.quote(value)}"
