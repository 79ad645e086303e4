"""The sections of adapters that were not evaluated: one that could not be judged is never green and
never left out; one that the head removes is said to be gone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from adapterbot import TOOL
from adapterbot.errors import AdapterbotError, EndedEarly, InputError
from adapterbot.records import AdapterReport, Outcome, Problem, Report, Source, Verdict

_LONGEST = 500
UNKNOWN_KEY = "gate."
"""The key of a gate that stopped before it knew which adapters there are. No path gives it: keys
that come from paths end in a letter or digit."""

AFTER_KEY = "after."
"""The key of what a change leaves behind, when that is nothing that later gates could read."""


def problem_of(error: AdapterbotError) -> Problem:
    """An error as the record that reports carry."""
    return Problem(
        kind=_kind(error),
        message=_line(error.message) or "stopped",
        file=_line(error.file),
        field=_line(error.field),
        fix=_line(error.fix),
    )


def _kind(error: AdapterbotError) -> Literal["bad_input", "failure", "ended"]:
    if isinstance(error, InputError):
        return "bad_input"
    return "ended" if isinstance(error, EndedEarly) else "failure"


def _line(text: str | None) -> str | None:
    """Text that a record accepts: bounded, and without the surrogates that odd file names bring.

    A failure here would leave an older, green comment standing.
    """
    if text is None:
        return None
    plain = text.encode("utf-8", "replace").decode()
    return plain if len(plain) <= _LONGEST else plain[: _LONGEST - 1] + "…"


def taken_away(key: str, adapter: str) -> AdapterReport:
    """The section of an adapter that the head removes, on purpose."""
    reason = "this change removes the adapter, and no adapterbot.yaml lists it any more"
    verdict = Verdict(outcome=Outcome.PASSED, fails=False, reasons=(reason,))
    return AdapterReport(key=key, adapter=adapter, verdict=verdict)


def not_judged(key: str, path: str, error: AdapterbotError) -> AdapterReport:
    """The section of an adapter that we could not judge: never green, never silent."""
    return AdapterReport(
        key=key,
        adapter=path,
        verdict=Verdict(
            outcome=Outcome.NOT_JUDGED, fails=False, reasons=("the gate could not judge this",)
        ),
        problem=problem_of(error),
    )


def stopped(
    adapters: Sequence[tuple[str, str]],
    source: Source,
    error: AdapterbotError,
    *,
    partial: bool = False,
) -> Report:
    """The report of a gate that could not go on.

    Args:
        adapters: key and path of every adapter that it knew by then.
    """
    sections = [not_judged(key, path, error) for key, path in adapters]
    asked = "the pull request" if source.pull_request else "the change"
    return Report(
        tool=TOOL,
        source=source,
        partial=partial,
        adapters=tuple(sections) or (not_judged(UNKNOWN_KEY, asked, error),),
    )


def with_older(sections: list[AdapterReport], older: Collection[str]) -> list[AdapterReport]:
    """Sections for our older comments too, so that none goes on saying what no longer holds.

    When the gate stopped before it knew the adapters, every older comment says why.
    """
    unknown = next((section for section in sections if section.key == UNKNOWN_KEY), None)
    if unknown:
        keys = sorted(older) or [UNKNOWN_KEY]
        return [unknown.model_copy(update={"key": key}) for key in keys]
    missing = sorted(set(older) - {section.key for section in sections})
    return sections + [AdapterReport(key=k, adapter=k, verdict=_unchanged(k)) for k in missing]


def _unchanged(key: str) -> Verdict:
    reason = "this pull request no longer changes the adapter"
    if key == UNKNOWN_KEY:
        reason = "the gate runs again; its findings are in the other comments, if there are any"
    if key == AFTER_KEY:
        reason = "what this pull request leaves behind can be read by later gates"
    return Verdict(outcome=Outcome.PASSED, fails=False, reasons=(reason,))
