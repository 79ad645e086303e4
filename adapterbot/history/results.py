"""What is kept of a report, and the trends that many of them make. Pure.

A file of results is JSON lines, one for each adapter and commit, by the time of their commits: the
gate of an older one may well end after that of a newer one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from adapterbot.files import validation
from adapterbot.records import AdapterReport, CommitSha, Report
from adapterbot.records.history import MAX_POINTS, PastMetric, PastResult, Point, Trend

_FIX = "mend the line, or remove it"
_NEWER = "a newer adapterbot wrote it: use that one here, too"


def of_report(report: Report, commit: CommitSha, time: int) -> tuple[PastResult, ...]:
    """One result for each adapter that was judged; an unjudged one has no level to keep."""
    return tuple(
        PastResult(
            commit=commit,
            time=time,
            adapter=adapter.key,
            outcome=adapter.verdict.outcome,
            metrics=tuple(
                PastMetric(
                    metric=metric.delta.metric,
                    unit=metric.delta.unit,
                    direction=metric.delta.direction,
                    value=metric.delta.candidate,
                    n=metric.delta.n,
                )
                for metric in adapter.metrics
            ),
        )
        for adapter in report.adapters
        if adapter.metrics and adapter.problem is None
    )


def merged(known: Iterable[PastResult], new: Iterable[PastResult]) -> tuple[PastResult, ...]:
    """Both, oldest commit first; one that was judged again has its new result. Commits of one
    second stay as they came."""
    found = {(result.commit, result.adapter): result for result in known}
    found.update({(result.commit, result.adapter): result for result in new})
    return tuple(sorted(found.values(), key=lambda result: result.time))


def trends(
    results: Iterable[PastResult], adapter: str, limit: int = MAX_POINTS
) -> tuple[Trend, ...]:
    """The last `limit` levels of each metric that the newest result of an adapter names."""
    own = [result for result in results if result.adapter == adapter][-limit:]
    if not own:
        return ()
    levels = [{metric.metric: metric.value for metric in result.metrics} for result in own]
    return tuple(
        Trend(
            metric=newest.metric,
            unit=newest.unit,
            direction=newest.direction,
            points=tuple(
                Point(commit=result.commit, time=result.time, value=level.get(newest.metric))
                for result, level in zip(own, levels, strict=True)
            ),
        )
        for newest in own[-1].metrics
    )


def with_trends(report: Report, results: Sequence[PastResult]) -> Report:
    """The report, in which each adapter has its metrics' past levels."""

    def one(adapter: AdapterReport) -> AdapterReport:
        return adapter.model_copy(update={"trends": trends(results, adapter.key)})

    return report.model_copy(update={"adapters": tuple(map(one, report.adapters))})


def to_lines(results: Iterable[PastResult]) -> str:
    """JSON lines."""
    return "".join(f"{result.model_dump_json()}\n" for result in results)


def from_lines(text: str, name: str) -> tuple[PastResult, ...]:
    """What `to_lines` wrote.

    Raises:
        InputError: naming the file and the line.
    """
    found: list[PastResult] = []
    # Not by splitlines: JSON leaves U+2028 and the like in strings as they are.
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), 1):
        try:
            found.append(PastResult.model_validate_json(line))
        except ValidationError as error:
            newer = any(one["loc"] == ("version",) for one in error.errors())
            fix = _NEWER if newer else _FIX
            raise validation.bad_input(error, file=f"{name}:{number}", fix=fix) from error
    return merged((), found)
