"""A metric's standing in one line of plain text: what moved, how surely, against which margin; and
what a run cost, and a merge gained."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from adapterbot.records import (
    Direction,
    EarlyStop,
    EvalStats,
    LockResult,
    MetricDelta,
    NoiseFloor,
    Stage,
    Standing,
    Unit,
)
from adapterbot.records.merge import SearchRecord

_MINUS = "−"


def reason(
    delta: MetricDelta, standing: Standing, margin: float, threshold: float | None = None
) -> str:
    """One line, such as `date_us by −45.0 points [−53.1, −36.4], margin 5.0`.

    The word between name and number is of more than style: behind a Hebrew name a number is drawn
    from the right, its minus sign last.
    """
    if standing is Standing.NOT_JUDGED:
        return f"{delta.metric} was not judged: {delta.note or 'it could not be compared'}"
    moved = f"{delta.metric} {'' if delta.change is None else 'by '}{_change(delta)}"
    if standing is Standing.INFORMATIVE:
        return moved
    line = f"{moved}, margin {_given(margin, delta.unit)}"
    if standing is Standing.REGRESSED and threshold is not None:
        return f"{line}, threshold {_given(threshold, delta.unit)}"
    line += _decided(delta, standing, margin)
    if standing is Standing.REGRESSED and (delta.harm or 0.0) < margin:
        return f"{line}: certain, although within the margin"
    if standing is Standing.INCONCLUSIVE:
        if delta.samples_needed is None:
            return f"{line}: undecided"
        return f"{line}: about {delta.samples_needed:,} samples would settle it, not {delta.n:,}"
    return line


def _decided(delta: MetricDelta, standing: Standing, margin: float) -> str:
    """What decided, where the interval in the same line seems to say otherwise: that one has two
    sides and is of one metric alone, a standing rests on one side and on Holm's level."""
    if delta.interval is None:
        return ""
    ends = (delta.interval.low, delta.interval.high)
    low, high = ends if delta.direction is Direction.LOWER else (-ends[1], -ends[0])
    if standing in (Standing.OK, Standing.IMPROVED):
        if high < margin or delta.harm_high is None:
            return ""
        how = "at most {} worse" if delta.harm_high >= 0 else "at least {} better"
        return f", {how.format(_figure(abs(delta.harm_high), delta.unit))} by its one-sided bound"
    if (low > 0) is (standing is Standing.REGRESSED) or delta.p_holm is None:
        return ""
    return f", p {delta.p_holm:.2g} after Holm"


def level(value: float, unit: Unit) -> str:
    """What a metric is at, such as `62.5 %`, `41.3`."""
    return _figure(value, unit) + (" %" if unit is Unit.FRACTION else "")


def drifted(locked: LockResult) -> str:
    """One phrase, such as `soup.lock does not match: env_hash`; advice is no drift."""
    moved = ", ".join(part.part for part in locked.parts if not (part.ok or part.advisory))
    if moved:
        return f"{locked.path} does not match: {moved}"
    return locked.note or f"{locked.path} has drifted"


def stopped_early(early: EarlyStop) -> str:
    """One phrase, such as `clear after 180 of 600 samples (sequential)`."""
    if early.used >= early.planned:
        return f"all {early.planned:,} samples were needed (sequential)"
    return f"clear after {early.used:,} of {early.planned:,} samples (sequential)"


def noise_floor(noise: NoiseFloor) -> str:
    """One phrase, such as `A/A: 2 of 32 answers differ, dates_us by 6.2 points on 16 samples`."""
    if noise.samples == 0:
        return "A/A: too few samples for it"
    if not (noise.answers or noise.scores):
        return f"A/A: none of {noise.samples} answers differs"
    words = f"A/A: {noise.answers} of {noise.samples} answers differ"
    if noise.task is None:
        return f"{words}, no mean does"
    points = " points" if noise.unit is Unit.FRACTION else ""
    # Of few samples one is many points: the table's figures are of all.
    over = f" on {noise.asked:,} samples" if noise.asked else ""
    return f"{words}, {noise.task} by {_figure(noise.shift, noise.unit)}{points}{over}"


def cost(stats: EvalStats, stages: Sequence[Stage]) -> str | None:
    """One phrase, such as `0.8 GPU minutes`; None where no stage was timed.

    A GPU is taken from the loading of the base to the end, whether it computes or waits. Without
    one it is the processor time of our own process that counts.
    """
    if not stages:
        return None
    if stats.gpus:
        names = [stage.name for stage in stages]
        held = stages[names.index("load") :] if "load" in names else stages
        return _minutes(stats.gpus * sum(stage.seconds for stage in held), "GPU")
    return _minutes(sum(stage.cpu_seconds for stage in stages), "CPU")


def gained(search: SearchRecord) -> str:
    """What a merge's winner is worth, by its interval on the half that chose nothing."""
    if search.winner == search.best_parent.rpartition("/")[2]:
        return "The search found no merge that is surely better than the best single adapter."
    winner = next((one for one in search.finalists if one.name == search.winner), None)
    if winner is None or winner.low is None or winner.high is None:
        return "Whether the winner is better than the best single adapter was not measured."
    if winner.low > 0:
        return "The winner is better than the best single adapter: its interval lies above 0."
    if winner.high < 0:
        return "The winner is worse than the best single adapter: its interval lies below 0."
    return "The winner may be no better than the best single adapter: its interval holds 0."


def _minutes(seconds: float, of_what: str) -> str:
    minutes = seconds / 60
    return f"{'<0.1' if minutes < 0.05 else f'{minutes:.1f}'} {of_what} minutes"


def _change(delta: MetricDelta) -> str:
    if delta.change is None:
        return delta.note or "could not be compared"
    unit = " points" if delta.unit is Unit.FRACTION else ""
    line = _figure(delta.change, delta.unit, sign=True) + unit
    if delta.interval is None:
        return line
    ends = (delta.interval.low, delta.interval.high)
    low, high = (_figure(end, delta.unit, sign=True) for end in ends)
    return f"{line} [{low}, {high}]"


def _given(value: float, unit: Unit) -> str:
    """A limit that somebody wrote down: not rounded as what was measured is."""
    shown = _figure(abs(value), unit)
    written = abs(value) * (100 if unit is Unit.FRACTION else 1)
    exact = f"{written:.4g}" if written < 1000 else shown
    return (_MINUS if value < 0 else "") + (shown if float(shown) == float(exact) else exact)


def _figure(value: float, unit: Unit, *, sign: bool = False) -> str:
    """A fraction in points with one decimal, a number with three digits, or all that stand before
    the point; a true minus sign."""
    if unit is Unit.FRACTION:
        # As the tables round: 100 times a float may fall on a tie that the float itself is not on.
        digits = f"{abs(100 * Decimal(value)):.1f}"
    else:
        digits = f"{abs(value):.0f}" if 999.5 <= abs(value) < 1e7 else f"{abs(value):.3g}"
    if not float(digits):
        return digits
    return (_MINUS if value < 0 else "+" if sign else "") + digits
