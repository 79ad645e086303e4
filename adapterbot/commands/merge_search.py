"""The search of a merge joined to what it knows nothing of: a suite, and a model that answers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from adapterbot.commands.merge_scores import SuiteScores
from adapterbot.errors import InputError
from adapterbot.eval.base_model import load_base
from adapterbot.eval.blends import BlendedModel
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
        self._items = _items(self._tasks, suite.path)
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


def _items(tasks: Sequence[Task], path: str) -> Items:
    if not tasks:
        raise InputError(
            "has no task that decides anything", file=path, fix="set `gated: true` on one"
        )
    for task in tasks:
        clusters = Counter(sample.cluster or f"\0{sample.id}" for sample in task.samples)
        if len(clusters) < FEWEST:
            raise InputError(
                f"has {len(clusters)} independent samples; one half of them chooses and the other"
                f" reports, each with its error, which takes {FEWEST}",
                file=path,
                field=task.name,
                fix="add samples; those of one cluster, or of one question, count as one",
            )
    return items_of(
        [[sample.cluster for sample in task.samples] for task in tasks],
        [task.weight for task in tasks],
    )
