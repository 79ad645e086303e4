"""`adapterbot eval`: adapters under a suite, their results kept and laid side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapterbot import TOOL
from adapterbot.changes.sides import config_of
from adapterbot.commands.base_option import refuse_missing
from adapterbot.commands.evaluator import Computing, engine
from adapterbot.commands.folders import out_directory
from adapterbot.commands.place import named_file
from adapterbot.config import SUITE, TRAINING_CONFIG, key_of
from adapterbot.console import listener_for
from adapterbot.delta import score_of
from adapterbot.errors import InputError
from adapterbot.eval.saved import save_results, saved_task
from adapterbot.eval.suite import Suite, load_suite
from adapterbot.files.tree import WorkTree
from adapterbot.judging.subjects import BARE, read_local
from adapterbot.lock.base_model import resolve_base
from adapterbot.lock.training import load_training
from adapterbot.overall import Mean, weighted, weights
from adapterbot.paired import corpus_value
from adapterbot.probing.evaluator import corpora
from adapterbot.records import (
    AdapterRef,
    Evaluated,
    EvaluatedAdapter,
    SavedResults,
    TaskMean,
    TaskResult,
)
from adapterbot.stages import Stages
from adapterbot.stats.alignment import exact_mean

NO_ADAPTER = "none"


@dataclass(frozen=True)
class EvalOptions(Computing):
    """What was asked. An adapter named `none` is the bare base model."""

    adapters: tuple[str, ...]
    base: str | None = None
    config: str = TRAINING_CONFIG
    suite: str | None = None
    out: Path | None = None


def run(options: EvalOptions, environment: Mapping[str, str] = os.environ) -> Evaluated:
    """Evaluate every adapter, in turn and under one load of the base.

    What a killed run has answered is in the score cache, and is not asked again. How answers are
    computed, and by which server, is the adapterbot.yaml's of the current directory, if it has one.

    Raises:
        AdapterbotError: an adapter, the suite or the base model cannot be used.
    """
    settings, server = options.chosen(config_of(WorkTree(Path.cwd())))
    directory = out_directory(options.out, environment) / "results"
    stages = Stages(listener_for(environment))
    with stages("read"):
        suite = load_suite(*named_file(Path(options.suite or SUITE), Path.cwd()))
        base_name, base = _base(options)
        asked = [
            BARE if name == NO_ADAPTER else read_local(name, base) for name in options.adapters
        ]
    files = _file_names([side.ref for side in asked])
    with stages("import"):
        make = engine(settings, environment, server=server, ray=options.ray)()
    found: list[EvaluatedAdapter] = []
    drafts: tuple[TaskResult, ...] | None = None
    with ExitStack() as stack:
        with stages("load"):
            evaluator = stack.enter_context(closing(make(base)))
            evaluator.prepare(suite.tasks, [side.files for side in asked])
        for side, name in zip(asked, files, strict=True):
            before = evaluator.stats()
            with stages(f"evaluate {side.ref.label}"[:100]) as progress:
                results = evaluator.evaluate(
                    suite.tasks, side.files, drafts=drafts, progress=progress
                )
            drafts = results
            path = directory / f"{name}.jsonl"
            head = SavedResults(
                tool=TOOL,
                adapter=side.ref,
                base_model=base_name,
                suite=suite.path,
                tasks=tuple(map(saved_task, suite.tasks)),
            )
            save_results(path, head, results)
            means = task_means(suite, results)
            cost = evaluator.stats()
            found.append(
                EvaluatedAdapter(
                    adapter=side.ref,
                    results=str(path),
                    tasks=means,
                    weighted=_weighted(suite, means),
                    eval=cost.model_copy(
                        update={
                            "samples": cost.samples - before.samples,
                            "cached": cost.cached - before.cached,
                            "seconds": round(cost.seconds - before.seconds, 3),
                        }
                    ),
                )
            )
    return Evaluated(tool=TOOL, base_model=base_name, suite=suite.path, adapters=tuple(found))


def task_means(suite: Suite, results: Sequence[TaskResult]) -> tuple[TaskMean, ...]:
    """Every task's metric, to the digit as a gate has it: the mean of its scores, or what the
    scorer makes of the whole corpus."""
    whole = corpora(suite.tasks)
    means = []
    for result in results:
        scored = [sample for sample in result.samples if sample.score is not None]
        if corpus := whole.get(result.task):
            mean = corpus_value(corpus.aggregate, corpus.table(scored))
        else:
            mean = exact_mean(np.array([score_of(sample) for sample in scored]))
        means.append(
            TaskMean(
                task=result.task,
                scorer=result.scorer,
                direction=result.direction,
                unit=result.unit,
                samples=len(result.samples),
                missing=len(result.samples) - len(scored),
                mean=mean,
            )
        )
    return tuple(means)


def _weighted(suite: Suite, means: Sequence[TaskMean]) -> float | None:
    by_task = weights(suite.tasks)
    return weighted(
        Mean(m.mean, m.direction, m.unit, by_task[m.task])
        for m in means
        if m.mean is not None and m.task in by_task
    )


def _base(options: EvalOptions) -> tuple[str, str | Path]:
    """The base model's name, and what to load it from."""
    if options.base:
        refuse_missing(options.base)
        local = Path(options.base)
        return options.base, local if local.is_dir() else options.base
    tree = WorkTree(Path.cwd())
    if not tree.has(options.config):
        raise InputError(
            "there is no training config to take the base model from",
            file=options.config,
            fix="name the base model with --base",
        )
    return resolve_base(tree, options.config, load_training(tree, options.config).base)


def _file_names(adapters: Sequence[AdapterRef]) -> list[str]:
    """A file name for each adapter, no two alike."""
    names: list[str] = []
    for adapter in adapters:
        key = name = key_of(adapter.path or adapter.label)
        copy = 1
        while name in names:
            copy += 1
            name = f"{key}.{copy}"
        names.append(name)
    return names
