"""Draws the pictures of docs/statistics.md from what `compare` and `judge` say of simulated scores.
`--check` says whether they are up to date, and writes nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from adapterbot.delta import compare
from adapterbot.paired import Metric, Paired, pair
from adapterbot.records import Direction, Standing, Unit
from adapterbot.verdict import MetricPolicy, judge

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
MARGIN = 0.05
RUNS = 400
METRICS = 10
WIDTH = 720
_LEFT, _RIGHT, _TOP = 190, 30, 34
_INK, _GREY, _BAD, _GOOD = "#586069", "#b0b6bc", "#cf222e", "#1a7f37"
_COLOURS = {
    Standing.REGRESSED: _BAD,
    Standing.OK: _GOOD,
    Standing.IMPROVED: _GOOD,
    Standing.INCONCLUSIVE: "#9a6700",
}


def answers(rng: np.random.Generator, n: int, lost: int, won: int) -> tuple[np.ndarray, np.ndarray]:
    """0/1 scores of n samples: `lost` only the baseline has right, `won` only the candidate."""
    baseline = np.ones(n)
    baseline[: n // 10] = 0.0
    candidate = baseline.copy()
    candidate[n - lost :] = 0.0
    baseline[n - lost - won : n - lost] = 0.0
    order = rng.permutation(n)
    return baseline[order], candidate[order]


def paired(task: str, baseline: np.ndarray, candidate: np.ndarray) -> Paired:
    """One metric's paired samples, ready to be judged."""
    metric = Metric(task=task, direction=Direction.HIGHER, unit=Unit.FRACTION)
    return pair(metric, baseline, candidate)


# ---------------------------------------------------------------- drawing


class Picture:
    """An SVG on white, so that it is legible on a dark page, too."""

    def __init__(self, height: int, title: str) -> None:
        head = f'viewBox="0 0 {WIDTH} {height}" role="img" font-family="sans-serif" font-size="13"'
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {head} fill="{_INK}">',
            f"<title>{escape(title)}</title>",
            '<rect width="100%" height="100%" fill="#fff"/>',
        ]

    def line(self, x: float, y: float, to_x: float, to_y: float, colour: str, width: float) -> None:
        """A line."""
        self._parts.append(
            f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" '
            f'stroke="{colour}" stroke-width="{width}"/>'
        )

    def text(self, x: float, y: float, text: str, anchor: str = "start") -> None:
        """A line of text."""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def dot(self, x: float, y: float, colour: str) -> None:
        """A dot."""
        self._parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>')

    def bar(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """A filled box."""
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'fill="{colour}"/>'
        )

    def path(self, points: Iterable[tuple[float, float]], colour: str) -> None:
        """A line through points."""
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(
            f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )

    def __str__(self) -> str:
        return "\n".join([*self._parts, "</svg>", ""])


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


# ---------------------------------------------------------------- the pictures


def standings() -> Picture:
    """Four candidates against one margin, and what each is called."""
    rng = np.random.default_rng(1)
    cases = [
        ("400 samples, 40 lost, 6 won", answers(rng, 400, 40, 6)),
        ("400 samples, 8 lost, 7 won", answers(rng, 400, 8, 7)),
        ("400 samples, 4 lost, 32 won", answers(rng, 400, 4, 32)),
        ("40 samples, 3 lost, 1 won", answers(rng, 40, 3, 1)),
    ]
    drawn = Picture(_TOP + 62 * len(cases) + 46, "Interval of the harm, and the standing it gives")
    x = _scale(-0.15, 0.20, _LEFT, WIDTH - _RIGHT)
    bottom = _TOP + 62 * len(cases)
    for value in (-0.1, 0.0, 0.1):
        drawn.line(x(value), _TOP, x(value), bottom, _GREY, 1)
        drawn.text(x(value), bottom + 20, f"{100 * value:+.0f} points" if value else "0", "middle")
    drawn.line(x(MARGIN), _TOP, x(MARGIN), bottom, _BAD, 1.5)
    drawn.text(x(MARGIN), _TOP - 10, f"margin M = {100 * MARGIN:.0f} points", "middle")
    drawn.text(x(0.0), bottom + 40, "harm h: how much worse the candidate is", "middle")
    for row, (name, (baseline, candidate)) in enumerate(cases):
        policy = MetricPolicy(True, MARGIN, 0.0, None)
        (metric,), _ = judge([paired(name, baseline, candidate)], {name: policy})
        delta = metric.delta
        assert delta.harm_low is not None
        assert delta.harm_high is not None
        assert delta.change is not None
        y, colour = _TOP + 62 * row + 34, _COLOURS[metric.standing]
        drawn.text(8, y - 4, name)
        drawn.text(8, y + 14, metric.standing.value)
        drawn.line(x(delta.harm_low), y, x(delta.harm_high), y, colour, 4)
        drawn.dot(x(-delta.change), y, colour)
    return drawn


def samples() -> Picture:
    """The least drop that a suite would detect, by its size and by how often answers differ."""
    sizes = [50, 100, 200, 400, 800, 1600, 3200]
    height = 320
    drawn = Picture(height, "The smallest drop that a suite can detect, by its number of samples")
    x = _scale(np.log(sizes[0]), np.log(sizes[-1]), 70, WIDTH - 170)
    y = _scale(0.0, 0.16, height - 50, _TOP)
    for size in sizes:
        drawn.text(x(np.log(size)), height - 30, str(size), "middle")
    drawn.text((70 + WIDTH - 170) / 2, height - 8, "samples", "middle")
    for points in (0, 5, 10, 15):
        drawn.line(70, y(points / 100), WIDTH - 170, y(points / 100), _GREY, 1)
        drawn.text(60, y(points / 100) + 4, f"{points} points", "end")
    rng = np.random.default_rng(2)
    # The lines end so close to each other that their names need a line each.
    for share, colour, lower in ((0.20, _BAD, -10), (0.10, "#9a6700", 4), (0.04, _GOOD, 18)):
        found = []
        for size in sizes:
            half = round(size * share / 2)
            baseline, candidate = answers(rng, size, half, half)
            delta = compare(baseline, candidate, direction="higher", margin=MARGIN)
            assert delta.min_detectable is not None
            found.append((x(np.log(size)), y(delta.min_detectable)))
        drawn.path(found, colour)
        drawn.text(found[-1][0] + 8, found[-1][1] + lower, f"{100 * share:.0f} % differ")
    return drawn


def alarms() -> Picture:
    """How often an unchanged adapter is called worse: by a plain threshold, and by the gate."""
    sizes = (50, 200, 1000)
    counts = {size: _alarms(np.random.default_rng(size), size) for size in sizes}
    drawn = Picture(_TOP + 84 * len(sizes) + 10, "False alarms with ten unchanged metrics")
    x = _scale(0.0, 1.0, _LEFT, WIDTH - 70)
    drawn.text(8, 18, f"{METRICS} metrics that did not change, {RUNS} runs for each n of samples")
    for row, (size, (plain, ours)) in enumerate(counts.items()):
        y = _TOP + 84 * row
        drawn.text(8, y + 26, f"n = {size}")
        for at, (name, alarmed, colour) in enumerate(
            (("dropped 2 points", plain, _BAD), ("the gate", ours, _GOOD))
        ):
            top = y + 10 + 34 * at
            drawn.bar(x(0.0), top, max(1.0, x(alarmed / RUNS) - x(0.0)), 26, colour)
            drawn.text(x(alarmed / RUNS) + 6, top + 18, f"{100 * alarmed / RUNS:.0f} %")
            drawn.text(_LEFT - 6, top + 18, name, "end")
    return drawn


def _alarms(rng: np.random.Generator, size: int) -> tuple[int, int]:
    """Runs with an alarm, by the plain rule and by the gate, where one answer in twenty differs."""
    policies = {f"m{at}": MetricPolicy(True, MARGIN, 0.0, None) for at in range(METRICS)}
    plain = ours = 0
    for _ in range(RUNS):
        metrics: list[Paired] = []
        worst = 0.0
        for name in policies:
            baseline = (rng.random(size) < 0.8).astype(float)
            drawn_anew = rng.random(size) < 0.1  # and half of those differ then
            candidate = np.where(drawn_anew, (rng.random(size) < 0.5).astype(float), baseline)
            baseline = np.where(drawn_anew, (rng.random(size) < 0.5).astype(float), baseline)
            worst = max(worst, float(np.mean(baseline - candidate)))
            metrics.append(paired(name, baseline, candidate))
        plain += worst >= 0.02
        ours += any(m.standing is Standing.REGRESSED for m in judge(metrics, policies)[0])
    return plain, ours


PICTURES: Sequence[Callable[[], Picture]] = (standings, samples, alarms)


def main() -> None:
    """Draw the pictures, or compare them."""
    for draw in PICTURES:
        path = FOLDER / f"statistics-{draw.__name__}.svg"
        text = str(draw())
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            raise SystemExit(
                f"{path.name} is out of date; run `python -m scripts.statistics_figures`"
            )


if __name__ == "__main__":
    main()
