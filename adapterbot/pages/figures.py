"""Numbers as a reader wants them: percent and points, a true minus sign, never NaN or -0.0.

Everything returned here is made of digits and our own words, so it is inert by construction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

from adapterbot.pages.inert import NONE, Inert
from adapterbot.records import Direction, Interval, MetricDelta, Unit

_MINUS = "−"
_THIN = "\N{NARROW NO-BREAK SPACE}"
_NBSP = "\N{NO-BREAK SPACE}"
_HUGE = Decimal(10) ** 7


def _digits(value: Decimal, decimals: int) -> str:
    """Unsigned fixed notation, scientific where that would be a wall of digits."""
    if abs(value) >= _HUGE:
        return f"{abs(value):.2e}".replace("e+", "e").replace("e", "·10^")
    return f"{abs(value):.{decimals}f}"


def _written(value: float, unit: Unit, decimals: int, plus: str) -> str:
    """A figure with its sign; one that rounds to zero has none."""
    # Decimal, because a float near its upper end times 100 is infinite.
    scaled = Decimal(value) * (100 if unit is Unit.FRACTION else 1)
    digits = _digits(scaled, decimals)
    sign = "" if not digits.strip("0.") else _MINUS if scaled < 0 else plus
    return f"{sign}{digits}"


@dataclass(frozen=True)
class Scale:
    """How the figures of one row are written, so that they line up with each other."""

    unit: Unit
    decimals: int

    @classmethod
    def of(cls, delta: MetricDelta) -> Scale:
        """Percent get one decimal; other numbers about four significant digits of the largest.

        A change that would vanish at that precision gets two digits of its own, within reason.
        """
        if delta.unit is Unit.FRACTION:
            return cls(Unit.FRACTION, 1)
        size = max((abs(v) for v in (delta.baseline, delta.candidate) if v), default=1.0)
        decimals = 3 - math.floor(math.log10(size))
        if delta.change:
            decimals = max(decimals, min(1 - math.floor(math.log10(abs(delta.change))), 5))
        return cls(Unit.NUMBER, min(max(decimals, 0), 6))

    def _written(self, value: float, *, plus: str = "") -> str:
        return _written(value, self.unit, self.decimals, plus)

    def level(self, value: float | None) -> Inert:
        """A score: `92.5 %` or `1.234`."""
        if value is None:
            return NONE
        percent = f"{_THIN}%" if self.unit is Unit.FRACTION else ""
        return Inert(self._written(value) + percent)

    def _points(self) -> str:
        return f"{_THIN}pts" if self.unit is Unit.FRACTION else ""

    def change(self, value: float | None) -> Inert:
        """A signed difference: `−45.0 pts` or `+0.12`."""
        if value is None:
            return NONE
        written = self._written(value, plus="+")
        if value and not written.strip("0."):
            return Inert(f"≈{_THIN}0{self._points()}")
        return Inert(written + self._points())

    def showing(self, limit: float) -> Scale:
        """The same, with the decimals that a limit takes which somebody wrote down: 0.25 points are
        no 0.3."""
        written = limit * (100 if self.unit is Unit.FRACTION else 1)
        return replace(self, decimals=max(self.decimals, _needed(written)))

    def apart(self, value: float, limit: float) -> Scale:
        """The same, with the decimals that tell a figure from the limit that it is held against."""
        finer = (replace(self, decimals=self.decimals + more) for more in range(4))
        return next((s for s in finer if s.change(value) != s.change(limit)), self)

    def interval(self, interval: Interval | None) -> Inert:
        """`[−53.1, −36.4]`, in the unit of the change beside it."""
        if interval is None:
            return NONE
        low, high = (self._written(v, plus="+") for v in (interval.low, interval.high))
        return Inert(f"[{low},{_NBSP}{high}]")

    def detectable(self, value: float | None, direction: Direction) -> Inert:
        """The smallest harm the suite could have seen, in the direction in which it hurts."""
        if value is None:
            return NONE
        size = self._written(abs(value)) + self._points()
        return Inert(size if direction is Direction.HIGHER else f"rise of{_NBSP}{size}")


@dataclass(frozen=True)
class Compact:
    """Figures as people write them by hand: `12.1%`, `7.4`, `+0.8`, without idle digits.

    For a document that states figures; a table of measurements lines them up with `Scale`.
    """

    unit: Unit
    decimals: int

    @classmethod
    def of(cls, unit: Unit, *values: float | None) -> Compact:
        """One decimal for percent, else the digits that four significant ones need; more where the
        difference would vanish."""
        known = [value for value in values if value is not None]
        decimals = 1 if unit is Unit.FRACTION else max(map(_needed, known), default=0)
        size = abs(max(known, default=0.0) - min(known, default=0.0))
        if size and math.isfinite(size):
            percent = 2 if unit is Unit.FRACTION else 0
            decimals = max(decimals, min(-math.floor(math.log10(size)) - percent, 6))
        return cls(unit, decimals)

    def level(self, value: float | None) -> Inert:
        """`12.1%` or `7.4`; a dash for what was not measured."""
        return NONE if value is None else Inert(self._written(value, ""))

    def change(self, value: float | None) -> Inert:
        """`−7.5%` or `+0.8`."""
        return NONE if value is None else Inert(self._written(value, "+"))

    def interval(self, interval: Interval | None) -> Inert:
        """`[−9.1%, −5.9%]`."""
        if interval is None:
            return NONE
        low, high = (self._written(value, "+") for value in (interval.low, interval.high))
        return Inert(f"[{low},{_NBSP}{high}]")

    def _written(self, value: float, plus: str) -> str:
        percent = "%" if self.unit is Unit.FRACTION else ""
        return _written(value, self.unit, self.decimals, plus) + percent


def _needed(value: float) -> int:
    """Decimals that four significant digits of `value` need."""
    exponent = Decimal(f"{value:.4g}").normalize().as_tuple().exponent
    return min(max(-exponent, 0), 6) if isinstance(exponent, int) else 0


def share(value: float | None) -> Inert:
    """A probability or a share as percent; `100 %` and `0 %` are kept for certainty."""
    if value is None:
        return NONE
    if 0.99 < value < 1:
        return Inert(f">{_THIN}99{_THIN}%")
    if 0 < value < 0.01:
        return Inert(f"<{_THIN}1{_THIN}%")
    return Inert(f"{value * 100:.0f}{_THIN}%")


def p_value(value: float | None) -> Inert:
    """Three decimals, and no claim beyond them."""
    if value is None:
        return NONE
    return Inert("<0.001" if value < 0.001 else f"{value:.3f}")


def score(value: float | None, *, ticked: bool) -> Inert:
    """One sample's score: the number, or with `ticked`, where 1 is right and 0 is wrong, a tick or
    a cross."""
    if value is None:
        return Inert("not scored")
    if ticked and value in (0.0, 1.0):
        return Inert("✓" if value else "✗")
    return Inert(f"{value + 0.0:.3g}".replace("-", _MINUS))  # no -0


def fixed(value: float | None, *, signed: bool = False) -> Inert:
    """Three decimals, so that a column of scores lines up; of a million and more, four digits."""
    if value is None:
        return NONE
    digits = f"{abs(value):.3f}" if abs(value) < 1e6 else f"{abs(value):.4g}"
    sign = "" if not digits.strip("0.") else _MINUS if value < 0 else "+" if signed else ""
    return Inert(f"{sign}{digits}")


def duration(seconds: float) -> Inert:
    """`3.4 s`, `2 min 5 s`, `1 h 2 min`."""
    if seconds < 59.95:
        return Inert(f"{seconds:.1f}{_THIN}s")
    whole = round(seconds)
    if whole < 3600:
        return Inert(f"{whole // 60}{_THIN}min {whole % 60}{_THIN}s")
    return Inert(f"{whole // 3600}{_THIN}h {whole % 3600 // 60}{_THIN}min")


def day(seconds: int) -> Inert:
    """The day of a Unix time, in UTC: `2026-11-28`."""
    try:
        return Inert(datetime.fromtimestamp(seconds, tz=UTC).date().isoformat())
    except (OverflowError, ValueError):
        return NONE  # a stranger's report may be of the year a million


def whole(number: int) -> Inert:
    """`30,123,456`."""
    return Inert(f"{number:,}")


def count(number: int, noun: str) -> Inert:
    """`1 sample`, `1,200 samples`; `noun` is a literal of ours."""
    return Inert(f"{number:,} {noun}{'' if number == 1 else 's'}")
