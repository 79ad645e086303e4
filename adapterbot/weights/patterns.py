"""Regular expressions of an adapter's options: a stranger's, so each search has a time limit, and
each pattern one of size. What passes means to `regex`, which has the former, what it means to `re`.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from adapterbot.errors import InputError

if TYPE_CHECKING:
    import regex

MAX_PATTERNS = 4096
_SECONDS = 1.0
# `regex` writes a repeated part out, in some 300 bytes a character: `((a{999}){999}){999}` takes
# all the memory there is.
_MAX_WRITTEN_OUT = 100_000
_COUNT = re.compile(r"\{([0-9]+)")
# What `re`, by which PEFT reads a pattern, takes for plain characters and `regex` does not: a brace
# that is no count (`{e<=2}`, or `{ 9}` after `(?x)`), and `[:alpha:]`.
_OF_REGEX_ALONE = re.compile(r"\{(?![0-9]*(?:,[0-9]*)?\})|\[:")


def check(pattern: str) -> None:
    """What can be known of a pattern before it is searched for.

    Raises:
        ValueError: it is no pattern of `re`, means another thing to `regex`, or repeats too much.
    """
    shown = f"the pattern {pattern[:80]!r}"
    if _OF_REGEX_ALONE.search(pattern):
        raise ValueError(f"{shown} has a brace, or a [:, that module names have not")
    written_out = len(pattern) * math.prod(max(1, int(n)) for n in _COUNT.findall(pattern))
    if written_out > _MAX_WRITTEN_OUT:
        raise ValueError(f"{shown} repeats too much")
    try:
        re.compile(pattern)
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{shown} is not a regular expression: {error}") from error


@lru_cache(maxsize=2 * MAX_PATTERNS)
def _compiled(pattern: str) -> regex.Pattern[str]:
    import regex

    try:
        check(pattern)
        return regex.compile(pattern)
    except (regex.error, ValueError, RecursionError) as error:
        raise _refused(str(error)) from error


def match(pattern: str, name: str, *, whole: bool = False) -> regex.Match[str] | None:
    """As `re.match`, or `re.fullmatch` when `whole`.

    Raises:
        InputError: it does not pass `check`, or did not end within a second.
    """
    compiled = _compiled(pattern)
    search = compiled.fullmatch if whole else compiled.match
    try:
        return search(name, timeout=_SECONDS)
    except TimeoutError as error:
        raise _refused(f"the pattern {pattern[:80]!r} takes too long to match") from error


def _refused(problem: str) -> InputError:
    return InputError(problem, file="adapter_config.json", fix="list the module names")
