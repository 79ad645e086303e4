"""A mixture's section: how each task's answers were shared out among its experts, on both sides.

The answers that were scored are read once more, with an eye on the gate. A few of each task are
enough to see where it goes, and cost a fraction of what writing them did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adapterbot.eval.answers import Sample
from adapterbot.eval.questions import Composite
from adapterbot.eval.suite import Task
from adapterbot.probing.evaluator import Evaluator
from adapterbot.records import ExpertShare, TaskResult, TaskRouting

MOST = 32
"""So many answers of each task are looked into."""

Mixtures = tuple[Composite | None, Composite | None]
Results = tuple[Sequence[TaskResult], Sequence[TaskResult]]


def measure(
    evaluator: Evaluator, tasks: Sequence[Task], mixtures: Mixtures, results: Results
) -> tuple[TaskRouting, ...]:
    """The shares of every task; empty where nobody can look into the model.

    Args:
        mixtures: baseline and candidate; None where a side is no mixture.
        results: what they answered to `tasks`, in the same order.
    """
    found = []
    for task, *answered in zip(tasks, *results, strict=True):
        # The same samples on both sides, whatever order the file has.
        chosen = sorted(task.samples, key=lambda s: task.lot(s.id))[:MOST]
        before, after = (
            _shares(evaluator, mixture, chosen, result)
            for mixture, result in zip(mixtures, answered, strict=True)
        )
        if before or after:
            names = dict.fromkeys((*before, *after))
            shares = tuple(
                ExpertShare(expert=name, baseline=before.get(name), candidate=after.get(name))
                for name in names
            )
            found.append(TaskRouting(task=task.name, samples=len(chosen), experts=shares))
    return tuple(found)


def _shares(
    evaluator: Evaluator, mixture: Composite | None, chosen: Sequence[Sample], result: TaskResult
) -> Mapping[str, float]:
    if mixture is None:
        return {}
    said = {score.sample_id: score.output for score in result.samples}
    # A log-likelihood has no output: the text whose likelihood was asked is what was read.
    answered = [(sample, said[sample.id] or sample.expected) for sample in chosen]
    shares = evaluator.shares(mixture, answered)
    return dict(zip(mixture.names, (min(1.0, share) for share in shares), strict=False))
