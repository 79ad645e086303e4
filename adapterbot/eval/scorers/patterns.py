"""Regular expressions that end: each search has a time limit, whatever pattern meets whatever
text. The patterns are the suite's, the texts a model's."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from adapterbot.importing import extras

if TYPE_CHECKING:
    import regex

PATTERN_LIMIT = 2000


class PatternError(ValueError):
    """A pattern that cannot be compiled."""


class PatternTimeout(Exception):
    """A search that did not end in time: nothing is known about this text."""


@lru_cache(maxsize=4096)
def compiled(pattern: str, ignore_case: bool = False) -> regex.Pattern[str]:
    """The pattern, compiled once.

    Raises:
        PatternError: it is not a regular expression, or too long.
        OurFailure: the `regex` package is not installed.
    """
    with extras("eval", "scoring"):
        import regex
    if len(pattern) > PATTERN_LIMIT:
        raise PatternError(f"pattern has more than {PATTERN_LIMIT} characters")
    try:
        return regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)
    except regex.error as error:
        raise PatternError(f"pattern is not a regular expression: {error}") from error


def matches(
    pattern: str, text: str, *, ignore_case: bool = False, whole: bool = False, seconds: float = 1.0
) -> bool:
    """Whether the pattern occurs in `text` (`whole`: is all of it).

    Raises:
        PatternTimeout: not known after `seconds` of processor time.
    """
    expression = compiled(pattern, ignore_case)
    search = expression.fullmatch if whole else expression.search
    try:
        return search(text, timeout=seconds) is not None
    except TimeoutError as error:
        raise PatternTimeout(f"pattern did not finish in {seconds:g} s") from error
