"""Where a history broke, drawn: the posterior over its checkpoints as a line, and as a chart."""

from __future__ import annotations

from adapterbot.pages import charts
from adapterbot.pages.inert import Inert
from adapterbot.records import BisectResult

# A report is a stranger's: it may claim a billion checkpoints.
_MOST = 10_000
_CELLS = 40
# With fewer, a chart says no more than the sentence above it.
_LEAST_BARS = 3


def line(found: BisectResult) -> Inert | None:
    """`▁▁▁▁▇▂▁▁`: how likely each checkpoint is the first bad one, oldest first."""
    if not found.suspicions or not 2 <= found.checkpoints <= _MOST:
        return None
    shares = [0.0] * found.checkpoints
    for suspicion in found.suspicions:
        if suspicion.index < found.checkpoints:
            shares[suspicion.index] = suspicion.probability
    per_cell = -(-found.checkpoints // _CELLS)
    sums = [sum(shares[i : i + per_cell]) for i in range(0, len(shares), per_cell)]
    return charts.sparkline(sums, low=0.0, high=1.0)


def chart(found: BisectResult) -> Inert | None:
    """The same as bars with names and percentages, where several are in doubt."""
    if len(found.suspicions) < _LEAST_BARS:
        return None
    in_order = sorted(found.suspicions, key=lambda suspicion: suspicion.index)
    return charts.bars(
        "How likely each checkpoint is the first bad one",
        [(suspicion.label, 100 * suspicion.probability) for suspicion in in_order],
        axis="percent",
        low=0,
        high=100,
    )
