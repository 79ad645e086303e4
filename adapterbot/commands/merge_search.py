"""The search of a merge joined to what it knows nothing of: a suite, and a model that answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from adapterbot.commands.merge_scores import SuiteScores
from adapterbot.errors import InputError
from adapterbot.eval.answers import Request
from adapterbot.eval.base_model import load_base
from adapterbot.eval.blends import BlendedModel
from adapterbot.eval.samples import question
from adapterbot.eval.settings import EngineSettings
from adapterbot.eval.suite import Suite, Task
from adapterbot.importing import extras
from adapterbot.merge.driver import Driver, Outcome, Plan
from adapterbot.merge.items import FEWEST, Items, items_of
from adapterbot.merge.names import Search
from adapterbot.merge.parameters import default_population
from adapterbot.merge.space import Space
from adapterbot.merge.standing import Standing
from adapterbot.records.merge import SearchRecord
from adapterbot.weights.adapter import Adapter
from adapterbot.weights.layers import group_of, layer_groups

if TYPE_CHECKING:
    from adapterbot.commands.merge_cluster import ClusterScores
    from adapterbot.commands.merge_options import SearchOptions

_LEAST_POPULATION = 8


class Searching:
    """Everything that one search is made of."""

    def __init__(
        self,
        adapters: Sequence[Adapter],
        suite: Suite,
        base: str,
        options: SearchOptions,
        seed: int,
    ) -> None:
        """
        Raises:
            InputError: the suite cannot be searched with, or an adapter does not fit the base.
        """
        self._tasks = [task for task in suite.tasks if task.gated]
        self._items = suite_items(self._tasks, suite.path)
        self._suite = suite
        self._paths = [str(adapter.files.path) for adapter in adapters]
        self._engine = options.engine
        search = options.search
        modules = {module for adapter in adapters for module in adapter.updates}
        self.groups = layer_groups(modules) if search is Search.PER_LAYER else ((),)
        self._space = Space(len(adapters), len(self.groups), search)
        population = options.population
        if population is None:
            population = max(_LEAST_POPULATION, default_population(self._space.dimension))
        self._plan = Plan(
            names=tuple(adapter.files.path.name for adapter in adapters),
            population=population,
            generations=options.generations,
            budget=options.budget,
            seed=seed,
            racing=options.racing,
        )
        settings = options.settings or EngineSettings()
        self._scores: SuiteScores | ClusterScores = (
            _on_cluster(options.ray, base, settings, adapters, self.groups, self._tasks)
            if options.ray
            else SuiteScores(
                BlendedModel(load_base(base, settings), settings, adapters, self.groups),
                self._tasks,
            )
        )
        self._driver: Driver | None = None

    def identity(self, digests: Sequence[str]) -> dict[str, Any]:
        """What a checkpoint must be of for this search to go on from it."""
        return {
            "adapters": list(digests),
            "base": self._scores.base_digest,
            "engine": self._engine,
            "suite": self._suite.digest,
            "search": self._space.search.value,
            "population": self._plan.population,
            "seed": self._plan.seed,
            "racing": self._plan.racing,
        }

    def run(
        self,
        state: Mapping[str, Any] | None,
        *,
        save: Callable[[Mapping[str, Any]], None],
        told: Callable[[Standing, float], None],
    ) -> Outcome:
        """Searches, from a checkpoint or from the start."""
        driver = Driver(
            self._space,
            self._plan,
            self._items,
            self._scores,
            clock=time.monotonic,
            save=save,
            told=told,
        )
        if state is not None:
            driver.resume(state)
        self._driver = driver
        try:
            return driver.run()
        finally:
            self._scores.close()

    def weigh(self, outcome: Outcome) -> Callable[[str], Sequence[float]]:
        """The winner's weights for a module, by its name."""
        weights = outcome.winner.weights
        return lambda name: weights[group_of(name, self.groups)]

    def record(self, outcome: Outcome, suite: str) -> SearchRecord:
        """The search as merge.json has it."""
        standing = outcome.standing
        gain = outcome.gain
        singles = [start.result.score for start in standing.starts[1:]]
        names = [
            f"layers {group[0]}–{group[-1]}" if group else "all layers" for group in self.groups
        ]
        return SearchRecord(
            search=self._space.search.value,
            groups=tuple(names),
            population=self._plan.population,
            seed=self._plan.seed,
            budget_seconds=int(self._plan.budget),
            seconds=round(self._driver.elapsed, 3) if self._driver else 0.0,
            stop=outcome.stop,
            converged=outcome.stop.value == "converged",
            gain=gain.mean if gain else None,
            gain_low=gain.low if gain else None,
            gain_high=gain.high if gain else None,
            restarts=outcome.restarts,
            candidates=standing.candidates,
            evaluated=standing.evaluated,
            failures=tuple(standing.failures),
            failed=standing.failed,
            selection_items=outcome.selection,
            report_items=outcome.report,
            suite=suite,
            suite_digest=self._suite.digest,
            winner=outcome.winner.name,
            best_parent=self._paths[int(np.argmax(singles))],
            history=tuple(standing.history),
            finalists=outcome.finalists,
        )


def _on_cluster(
    address: str,
    base: str,
    settings: EngineSettings,
    adapters: Sequence[Adapter],
    groups: Sequence[Sequence[int]],
    tasks: Sequence[Task],
) -> ClusterScores:
    with extras("eval,ray", "evaluating on a cluster"):
        from adapterbot.commands.merge_cluster import ClusterScores
    files = [adapter.files for adapter in adapters]
    return ClusterScores(base, settings, files, groups, tasks, address)


def suite_items(tasks: Sequence[Task], path: str) -> Items:
    """The samples of all tasks as a search sees them.

    Raises:
        InputError: there are too few to choose by one half and report by the other.
    """
    if not tasks:
        raise InputError(
            "has no task that decides anything", file=path, fix="set `gated: true` on one"
        )
    items = items_of([_known_by(task) for task in tasks], [task.weight for task in tasks])
    for number, task in enumerate(tasks):
        count = len(set(items.cluster[items.task == number].tolist()))
        if count < FEWEST:
            raise InputError(
                f"has {count} independent samples; one half of them chooses and the other"
                f" reports, each with its error, which takes {FEWEST}",
                file=path,
                field=task.name,
                fix="add samples; those of one cluster, or of one question, count as one, also"
                " where only another task shows that they are",
            )
    try:
        items.split(np.random.default_rng(0))
    except ValueError as error:
        raise InputError(
            "has tasks with so many samples in common that no two halves of them are apart",
            file=path,
            fix="add samples, or set `gated: false` on some tasks",
        ) from error
    return items


def _known_by(task: Task) -> list[set[Hashable]]:
    """What each sample is known by: its cluster, and its question, also in the form in which
    another task on the same rows asks it; but no question that several of its clusters ask."""
    asked = [
        {question(sample, task.request), question(sample, Request.LIKELIHOOD)}
        for sample in task.samples
    ]
    askers: dict[Hashable, set[str]] = {}
    for sample, questions in zip(task.samples, asked, strict=True):
        for one in questions:
            askers.setdefault(one, set()).add(sample.cluster or f"\0{sample.id}")
    return [
        {one for one in questions if len(askers[one]) == 1}
        | ({sample.cluster} if sample.cluster else set())
        for sample, questions in zip(task.samples, asked, strict=True)
    ]
