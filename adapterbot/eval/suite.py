"""A suite: the tasks that an adapter is judged by, read from a tree and checked in full.

`load_suite` is the way in. It reads our YAML and Soup's two formats, takes in every file that a
task names, and hands out frozen tasks that need nothing else. Torch-free.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path as PathOnDisk
from pathlib import PurePosixPath
from typing import BinaryIO

from pydantic import JsonValue

from adapterbot.errors import InputError
from adapterbot.eval import scorers, suite_soup
from adapterbot.eval.answers import GenerationSettings, Request, Sample
from adapterbot.eval.data import Row, read_rows
from adapterbot.eval.samples import Plan, build_samples, digest
from adapterbot.eval.scorers.base import Files
from adapterbot.eval.suite_file import SuiteSpec
from adapterbot.files.paths import join, normalise
from adapterbot.files.tree import TEXT_LIMIT, Identity, Tree
from adapterbot.files.yamlfile import Path, YamlFile, parse, validate
from adapterbot.records import Digest, Record, SavedTask, Unit

YAML_LIMIT = 256 * 1024
LOOK = 60.0
"""Seconds for the templates of a suite that nobody trusts."""
# Raised when the same content would be asked or scored in another way: old caches then miss.
DIGEST_VERSION = 1


class Task(SavedTask):
    """One metric: what is asked, and how the answers become scores."""

    generation: GenerationSettings
    request: Request
    samples: tuple[Sample, ...]

    def lot(self, *names: str) -> bytes:
        """What a sample of this name draws: sorted by it, samples stand in an order that has
        nothing to do with the file's, and is always the same."""
        return hashlib.sha256("\0".join((self.digest, *names)).encode()).digest()


Selection = Mapping[str, Collection[str]]
"""Ids of samples by the name of their task; a task that is not named has none."""


def selected(task: Task, samples: Selection | None) -> tuple[Sample, ...]:
    """The samples of a task that a selection names, in suite order; all of them for None."""
    if samples is None:
        return task.samples
    wanted = frozenset(samples.get(task.name, ()))
    return tuple(sample for sample in task.samples if sample.id in wanted)


class Suite(Record):
    """Every task, in the order of the file. `files` are all that were read for it; `digest` covers
    the policy too."""

    path: str
    files: tuple[str, ...]
    tasks: tuple[Task, ...]
    digest: Digest


def load_suite(tree: Tree, path: str) -> Suite:
    """Read a suite and all the data it names.

    Args:
        tree: where to read; the gate passes the base ref, never the pull request.
        path: our YAML, Soup's gate YAML, or a JSONL file of Soup's.

    Raises:
        InputError: naming the file, the field or line, and the fix.
    """
    path = normalise(path)
    read = _Recorded(tree)
    tasks = _tasks(read, path)
    # Soup's names are cut, and lengthened by a scoring: two that were written apart may meet.
    for name, count in Counter(task.name for task in tasks).items():
        if count > 1:
            raise InputError(f"makes two tasks named {name!r}", file=path, fix="rename one")
    policy: list[JsonValue] = [
        task.model_dump(mode="json", exclude={"samples", "scorer_options"}) for task in tasks
    ]
    return Suite(path=path, files=tuple(sorted(read.paths)), tasks=tasks, digest=digest(policy))


def suite_files(tree: Tree, path: str, until: float | None = None) -> tuple[str, ...]:
    """Every file that a suite is read from, sorted, for those who have no reason to trust it.

    All is checked as by `load_suite`, except what only the code of a task of lm-eval could say:
    nothing of the tree is run but the templates, apart and no longer than `until`
    (`time.monotonic`); a minute, unless that is said.

    Raises:
        InputError: as `load_suite`.
    """
    read = _Recorded(tree)
    _tasks(read, normalise(path), time.monotonic() + LOOK if until is None else until)
    return tuple(sorted(read.paths))


def _tasks(tree: Tree, path: str, until: float | None = None) -> tuple[Task, ...]:
    """The tasks of a suite; for one that is not trusted, `until` is when its templates must end."""
    if PurePosixPath(path).suffix.lower() in (".jsonl", ".ndjson"):
        rows = read_rows(tree, path)
        plans = suite_soup.plan_rows(PurePosixPath(path).stem, rows)
        return tuple(_build(plan, YamlFile(path, None, {}), tree, until) for plan in plans)
    file = parse(tree.read(path, limit=YAML_LIMIT), path)
    if not isinstance(file.content, dict):
        raise InputError(
            "is empty or not a mapping", file=path, fix="write `version: 1` and a list of `tasks`"
        )
    if suite_soup.is_gate(file.content):
        plans = suite_soup.plan_gate(tree, file)
    else:
        with ExitStack() as kept:
            plans = _plan(tree, file, kept, run=until is None)
    return tuple(_build(plan, file, tree, until) for plan in plans)


class _Recorded:
    """A tree that remembers which of its files were read."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.paths: set[str] = set()

    @property
    def label(self) -> str:
        return self._tree.label

    def has(self, path: str) -> bool:
        return self._tree.has(path)

    def survey(self) -> tuple[str, ...]:
        return self._tree.survey()

    def files(self, directory: str = "") -> tuple[str, ...]:
        return self._tree.files(directory)

    def read(self, path: str, *, limit: int = TEXT_LIMIT) -> bytes:
        content = self._tree.read(path, limit=limit)
        self.paths.add(normalise(path))
        return content

    def open(self, path: str, *, fetch: bool = True) -> AbstractContextManager[BinaryIO]:
        self.paths.add(normalise(path))
        return self._tree.open(path, fetch=fetch)

    def sha256(self, path: str) -> str:
        return self._tree.sha256(path)

    def identity(self, path: str) -> Identity | None:
        return self._tree.identity(path)

    def on_disk(self, path: str) -> PathOnDisk:
        self.paths.update(self._tree.files(path))
        return self._tree.on_disk(path)

    def rewritten(self, paths: Sequence[str]) -> Mapping[str, str]:
        return self._tree.rewritten(paths)


def _plan(tree: Tree, file: YamlFile, kept: ExitStack, *, run: bool) -> list[Plan]:
    spec = validate(SuiteSpec, file, file.content)
    cache: dict[str, tuple[Row, ...]] = {}
    plans: list[Plan] = []
    for index, task in enumerate(spec.tasks):
        at: Path = ("tasks", index)
        merged = task.over(spec.defaults)
        if task.kind is not None:
            from adapterbot.eval import suite_lm_eval

            files = Files(tree, _directory(file.name))
            plans.extend(suite_lm_eval.plan(merged, file, at, files, kept, run=run))
            continue
        if not merged.data:
            raise file.error((*at, "data"), "is missing", "name the task's data file")
        rows: list[Row] = []
        for name in merged.data:
            where = join(_directory(file.name), name, field=file.place(*at, "data"), file=file.name)
            if where not in cache:
                if not tree.has(where):
                    raise file.error(
                        (*at, "data"),
                        f"{where} does not exist in {tree.label}",
                        "correct the name, or commit the file",
                    )
                cache[where] = read_rows(tree, where)
            rows.extend(cache[where])
        plans.append(Plan(merged, tuple(rows), at))
    return plans


def _build(plan: Plan, file: YamlFile, tree: Tree, until: float | None) -> Task:
    spec = plan.spec
    at: Path = (*plan.at, "scorer")
    if spec.scorer is None:
        raise file.error(at, "is missing", f"name one of {', '.join(scorers.names())}")
    options = {key: value for key, value in spec.scorer.items() if key != "name"}
    name = str(spec.scorer["name"])
    kind = scorers.scorer_class(name, file=file.name, field=file.place(*at))
    for option in sorted(kind.derived & options.keys()):
        raise file.error((*at, option), "is filled in by adapterbot", "remove it")
    options = dict(kind.resolve(options, Files(tree, _directory(file.name))))
    scorer = scorers.get(name, options, file=file, at=at)
    gated = not scorer.informative if spec.gated is None else spec.gated
    samples = build_samples(plan, scorer, file=file.name, field=file.place(*plan.at), until=until)
    content: dict[str, JsonValue] = {
        "version": DIGEST_VERSION,
        "scorer": name,
        "options": dict(scorer.identity()),
        "request": scorer.request.value,
        "template": spec.template,
        "generation": spec.generation.model_dump(mode="json"),
        "samples": [sample.model_dump(mode="json") for sample in samples],
    }
    return Task(
        name=spec.name,
        scorer=name,
        scorer_options=options,
        direction=spec.direction or scorer.direction,
        kind=scorer.kind,
        unit=scorer.unit,
        margin=_margin(plan, scorer, gated, file),
        least_effect=spec.least_effect,
        threshold=plan.threshold,
        gated=gated,
        weight=spec.weight,
        generation=spec.generation,
        request=scorer.request,
        samples=samples,
        digest=digest(content),
    )


def _margin(plan: Plan, scorer: scorers.Scorer, gated: bool, file: YamlFile) -> float:
    if plan.spec.margin is not None:
        return plan.spec.margin
    if scorer.unit is Unit.FRACTION:
        return plan.margin
    if gated:
        raise file.error(
            (*plan.at, "margin"),
            f"is missing, and nothing suggests one for {scorer.name}",
            "write the harm that must be ruled out for it to be ok, in the metric's own unit",
        )
    return 0.0


def _directory(path: str) -> str:
    parent = PurePosixPath(path).parent.as_posix()
    return "" if parent == "." else parent
