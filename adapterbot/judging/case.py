"""One adapter's case: what is compared with what, by which suite, over which base model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapterbot.changes.sides import Sides
from adapterbot.config import AdapterConfig, Policy
from adapterbot.eval.suite import Suite
from adapterbot.files.tree import Tree
from adapterbot.judging import early, grounds, subjects
from adapterbot.judging.subjects import Side
from adapterbot.probing.evaluator import Evaluator
from adapterbot.verdict import MetricPolicy

if TYPE_CHECKING:
    from adapterbot.judging import tenants


@dataclass(frozen=True)
class Case:
    """What is judged, read and checked; nothing is evaluated yet.

    Attributes:
        policies: what every metric is held against.
        base: the base model's directory, or its id on the Hub.
        bank: what the head changes, where the adapter is a bank of many users' rows.
        notes: what a reader must know of all this.
    """

    suite: Suite
    policies: dict[str, MetricPolicy]
    base_name: str
    base: str | Path
    baseline: Side
    candidate: Side
    bank: tenants.Change | None
    notes: tuple[str, ...]

    def prepare(self, evaluator: Evaluator, policy: Policy) -> None:
        """Loads the base model if it is sure to be needed; else the first question does.

        Raises:
            AdapterbotError: it cannot be loaded.
        """
        if not (self.bank or policy.sequential):
            evaluator.prepare(self.suite.tasks, (self.baseline.files, self.candidate.files))

    def measure(
        self, evaluator: Evaluator, policy: Policy, progress: Callable[[int, int], None]
    ) -> early.Measured:
        """What both sides answer.

        Raises:
            InputError: a row of a bank cannot be used, or does not fit the base model.
        """
        tasks = self.suite.tasks
        if self.bank:
            return self.bank.measure(evaluator, tasks, self.base, progress)
        return early.measure(
            evaluator,
            tasks,
            (self.baseline.files, self.candidate.files),
            self.policies,
            alpha=policy.alpha,
            sequential=policy.sequential,
            progress=progress,
        )


def read_case(
    where: Sides, adapter: AdapterConfig, suite_tree: Tree | None, suites: dict[str, Suite]
) -> Case:
    """An adapter's case, from both sides of a comparison.

    Args:
        suite_tree: the files among which a suite that was named by hand lies.
        suites: as `grounds.suite` knows them.

    Raises:
        InputError: something of it is not there, broken, or does not fit the rest.
    """
    suite = grounds.suite(where, adapter, suite_tree, suites)
    policies = grounds.policies(suite, adapter)
    base_name, base, base_notes = grounds.base_model(where, adapter)
    bank: tenants.Change | None = None
    if adapter.is_bank:
        from adapterbot.judging import tenants

        bank = tenants.change(where, adapter, base)
        candidate, baseline = Side(bank.candidate, None), Side(bank.baseline, None)
        policies = bank.policies(policies, {task.name for task in suite.tasks})
        notes = bank.notes
    else:
        candidate = subjects.read(where.head, adapter.path, base)
        baseline, notes = subjects.baseline(where, adapter, base)
        notes += subjects.said_notes(baseline, candidate)
    return Case(
        suite=suite,
        policies=policies,
        base_name=base_name,
        base=base,
        baseline=baseline,
        candidate=candidate,
        bank=bank,
        notes=(
            *where.notes,
            *grounds.unlisted(where, adapter),
            *grounds.renamed(where, adapter),
            *grounds.not_evaluated(where, adapter),
            *grounds.suite_notes(where, suite),
            *base_notes,
            *notes,
        ),
    )
