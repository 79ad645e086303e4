"""A report's sections as ends of checks: the one for each adapter, and the one over all of them."""

from __future__ import annotations

from collections.abc import Sequence

from adapterbot import render
from adapterbot.commands.notes import notes
from adapterbot.gh.checks import CheckResult, Conclusion
from adapterbot.pages import figures
from adapterbot.pages.section import headline
from adapterbot.records import AdapterReport, Outcome, Report, Standing
from adapterbot.render import Links

_LIMIT = 65_000
_WORST_FIRST = (
    Conclusion.FAILURE,
    Conclusion.CANCELLED,
    Conclusion.NEUTRAL,
    Conclusion.SUCCESS,
)


def conclusion(adapter: AdapterReport, *, cancelled: bool = False) -> Conclusion:
    """What fails the gate fails its check, and what could not be judged is no success."""
    if adapter.problem is not None or adapter.verdict.outcome is Outcome.NOT_JUDGED:
        return Conclusion.CANCELLED if cancelled else Conclusion.FAILURE
    if adapter.verdict.fails:
        return Conclusion.FAILURE
    passed = adapter.verdict.outcome is Outcome.PASSED
    return Conclusion.SUCCESS if passed else Conclusion.NEUTRAL


def of_adapter(
    report: Report, adapter: AdapterReport, links: Links, *, cancelled: bool = False
) -> CheckResult:
    """The end of one adapter's check."""
    alone = report.model_copy(update={"adapters": (adapter,)})
    _, word = headline(adapter)
    regressed = sum(m.standing is Standing.REGRESSED for m in adapter.metrics)
    title = f"{word}: {figures.count(regressed, 'metric')}" if regressed else str(word)
    return CheckResult(
        conclusion(adapter, cancelled=cancelled),
        title,
        render.summary(alone, links=links, limit=_LIMIT),
        tuple(notes(adapter)),
    )


def of_report(report: Report, links: Links, *, cancelled: bool = False) -> CheckResult:
    """The end of the check over all adapters. Their notes are on their own checks."""
    ends = [conclusion(adapter, cancelled=cancelled) for adapter in report.adapters]
    if not ends:
        words = "No adapter changes"
        return CheckResult(Conclusion.SUCCESS, words, f"{words} here.")
    return CheckResult(
        min(ends, key=_WORST_FIRST.index),
        _counted(report.adapters),
        render.summary(report, links=links, limit=_LIMIT),
    )


def _counted(adapters: Sequence[AdapterReport]) -> str:
    """Such as "2 Passed, 1 Regressed"."""
    words = [str(headline(adapter)[1]) for adapter in adapters]
    if len(words) == 1:
        return words[0]
    return ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
