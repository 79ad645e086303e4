"""Regular expressions of an adapter's options: a stranger's, so each search has a time limit, and
each pattern one of size."""

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
_COUNT = re.compile(r"\{(\d+)")


@lru_cache(maxsize=2 * MAX_PATTERNS)
def _compiled(pattern: str) -> regex.Pattern[str]:
    import regex

    written_out = len(pattern) * math.prod(max(1, int(n)) for n in _COUNT.findall(pattern))
    if written_out > _MAX_WRITTEN_OUT:
        raise _refused(pattern, "repeats too much")
    return regex.compile(pattern)


def match(pattern: str, name: str, *, whole: bool = False) -> regex.Match[str] | None:
    """As `re.match`, or `re.fullmatch` when `whole`.

    Raises:
        InputError: it is no pattern, repeats too much, or did not end within a second.
    """
    import regex

    try:
        compiled = _compiled(pattern)
        search = compiled.fullmatch if whole else compiled.match
        return search(name, timeout=_SECONDS)
    except TimeoutError as error:
        problem = "takes too long to match"
        raise _refused(pattern, problem) from error
    except regex.error as error:
        raise _refused(pattern, f"is not a regular expression ({error})") from error


def _refused(pattern: str, problem: str) -> InputError:
    return InputError(
        f"the pattern {pattern[:80]!r} {problem}",
        file="adapter_config.json",
        fix="list the module names",
    )
