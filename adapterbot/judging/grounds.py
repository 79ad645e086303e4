"""What a judgement is based on, all of it from the base ref; and what the head would change."""

from __future__ import annotations

import time
from pathlib import Path, PurePosixPath

from adapterbot import verdict
from adapterbot.changes.conventions import adapter_directories, discover
from adapterbot.changes.renames import former
from adapterbot.changes.sides import Sides, config_of, how_changed, same
from adapterbot.config import AdapterConfig
from adapterbot.errors import InputError
from adapterbot.eval.suite import LOOK, Suite, load_suite, suite_files
from adapterbot.files.paths import join, normalise
from adapterbot.files.tree import Tree
from adapterbot.lock.base_model import base_in_tree, resolve_base
from adapterbot.lock.training import load_training
from adapterbot.records.deltas import metric_name
from adapterbot.verdict import MetricPolicy

# What transformers and vLLM read from an adapter's folder besides the adapter.
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


def suite(
    where: Sides, adapter: AdapterConfig, named: Tree | None, known: dict[str, Suite]
) -> Suite:
    """The suite, read from the base ref, or from `named`, the tree of one that was named by hand.

    Args:
        known: the suites that this gate has read, by path; this one is added.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    tree = named or where.base
    in_base, before, here = (t.has(adapter.suite) for t in (tree, where.fork_point, where.head))
    if here and not (named or in_base or before):
        raise InputError(
            "comes with this change, and only a suite of the base branch judges",
            file=adapter.suite,
            fix="merge it first: this check cannot pass before; by hand, name it with --suite",
        )
    if not in_base:
        raise InputError(
            f"does not exist in {tree.label}; the suite is read from the base branch only",
            file=adapter.suite,
            fix="list the adapter with its suite in adapterbot.yaml, and merge that first"
            if unlisted(where, adapter)
            else "merge an eval suite first, or name one with --suite",
        )
    if adapter.suite not in known:
        known[adapter.suite] = load_suite(tree, adapter.suite)
    return known[adapter.suite]


def policies(suite: Suite, adapter: AdapterConfig) -> dict[str, MetricPolicy]:
    """As `verdict.policies`, for a suite whose slices are known.

    Raises:
        InputError: a rule names a task or a slice that the suite does not have. A metric that was
            meant to decide would be missing without a word.
    """
    rules = adapter.policy.metrics
    found = verdict.policies(suite.tasks, rules)
    tasks = {task.name: task for task in suite.tasks}
    for name in sorted(rules.keys() - tasks.keys()):
        task = tasks[verdict.task_of(name, tasks) or name]
        own = sorted({metric_name(task.name, s.slice) for s in task.samples if s.slice is not None})
        if name not in own:
            raise InputError(
                "the suite has no such slice",
                field=f"policy.metrics.{name}",
                fix=f"name one of {', '.join(own)}" if own else "remove it; the task has no slices",
            )
    return found


def suite_notes(where: Sides, suite: Suite) -> tuple[str, ...]:
    """One note for each of the suite's files that the head changes: it was not used."""
    changed = [
        name
        for name in suite.files
        if where.fork_point.has(name) and not same(where.fork_point, where.head, name)
    ]
    return tuple(
        f"{name} is {how_changed(where.fork_point, where.head, name)} here; "
        "the version on the base branch was used"
        for name in changed
    )


def left_behind(where: Sides) -> InputError | None:
    """What would end every later gate once the head is merged: an `adapterbot.yaml`, or a suite in
    it, that the head changes so that it cannot be read. None where all can be read.

    It decides nothing else. Nothing of the head is run but its suites' templates, apart and with
    limits, and suites that are left after a minute are not looked at.
    """
    until = time.monotonic() + LOOK
    start, head = where.fork_point, where.head
    try:
        for suite in sorted(_suites_of_head(where)):
            if time.monotonic() > until:
                return None
            beside = _beside(start, suite)
            if beside == _beside(head, suite) and all(same(start, head, one) for one in beside):
                continue
            if not head.has(suite):
                raise InputError(
                    "does not exist", file=suite, fix="commit the suite, or correct its path"
                )
            suite_files(head, suite, until)
    except InputError as error:
        after = "; as it is here, no gate could read it once this is merged"
        return InputError(error.message + after, file=error.file, field=error.field, fix=error.fix)
    return None


def _suites_of_head(where: Sides) -> set[str]:
    """The suites that gates would read after the merge.

    Raises:
        InputError: the head's configuration cannot be read, lists a suite that was never there, or
            is missing although the head adds an adapter to another.
    """
    start, head = where.fork_point, where.head
    config = where.config
    if not all(same(start, head, name) for name in where.config_names):
        name = next(filter(head.has, where.config_names), None)
        config = config_of(head, name) if name else None
        listed = {adapter.suite for adapter in where.config.adapters} if where.config else set()
        for adapter in config.adapters if config else ():
            if adapter.suite not in listed and not head.has(adapter.suite):
                raise InputError(
                    f"names the suite {adapter.suite}, which does not exist",
                    file=name,
                    field=f"adapters, {adapter.path}: suite",
                    fix="commit the suite, or correct its path",
                )
    if config is None:
        here = adapter_directories(head.survey())
        if len(here) == 1 or set(here) - set(adapter_directories(start.survey())):
            config = discover(head.survey())
    return {adapter.suite for adapter in config.adapters} if config else set()


def _beside(tree: Tree, suite: str) -> set[str]:
    """A suite, where there is one, and the files in its folder, where its data usually is."""
    folder = PurePosixPath(suite).parent.as_posix()
    names = {name for name in tree.survey() if name.startswith(f"{folder}/")}
    return names | {suite} if tree.has(suite) else names


def base_model(where: Sides, adapter: AdapterConfig) -> tuple[str, str | Path, tuple[str, ...]]:
    """The name of the base model, where it is, and what the head would change about it.

    Like the suite it comes from the base ref, also for an adapter that moves with its config: a
    head that chose it could have both sides answer nothing, and be found no worse. Only where the
    base ref has none is the head's taken.

    Raises:
        InputError: the training config names none, or one that may not be loaded.
    """
    configs = (former(where, adapter).config, adapter.config)
    config = next(filter(where.base.has, configs), None)
    if config is None:
        name, base = resolve_base(where.head, adapter.config, where.allowed_base)
        return name, base, (f"the base model is named by {adapter.config}, which is new here",)
    name, base = resolve_base(where.base, config, where.allowed_base)
    try:
        ours = base_in_tree(where.base, config)
        theirs = load_training(where.head, adapter.config).base
        # A path to it changes with the place that it is written in.
        as_it_was = ours == base_in_tree(where.head, adapter.config) and (ours or theirs == name)
    except InputError:
        as_it_was = False
    note = "the base model is changed here; both sides were evaluated on the base branch's"
    return name, base, () if as_it_was else (note,)


def unlisted(where: Sides, adapter: AdapterConfig) -> tuple[str, ...]:
    """A note where the adapter has no entry in the base ref's `adapterbot.yaml`."""
    if where.config is None or adapter.key in {entry.key for entry in where.config.adapters}:
        return ()
    return ("not in adapterbot.yaml on the base branch, so judged by the default policy",)


def not_evaluated(where: Sides, adapter: AdapterConfig) -> tuple[str, ...]:
    """A note where the head changes tokenizer or generation files in the adapter's folder: whoever
    loads them from there is answered by them, and no verdict covers that."""
    here = normalise(adapter.path)
    before = here if where.fork_point.has(here) else normalise(former(where, adapter).path)
    changed = [
        name
        for name in _TOKENIZER_FILES
        if where.head.has(join(here, name))
        and not same(where.fork_point, where.head, join(before, name), join(here, name))
    ]
    if not changed:
        return ()
    verb = "is" if len(changed) == 1 else "are"
    note = (
        f"{', '.join(changed)} of the adapter's folder {verb} new or changed here, and not "
        "evaluated: both sides were asked through the base model's own"
    )
    return (note,)


def renamed(where: Sides, adapter: AdapterConfig) -> tuple[str, ...]:
    """A note where the baseline's folder is gone from the head: it moved to the adapter's."""
    old = adapter.baseline
    if old in ("none", "base-ref") or where.head.has(old) or not where.fork_point.has(old):
        return ()
    return (f"{old} has moved here, and is what this is compared with",)
