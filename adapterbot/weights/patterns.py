"""Regular expressions of an adapter's options: a stranger's, so each search has a time limit."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from adapterbot.errors import InputError

if TYPE_CHECKING:
    import regex

MAX_PATTERNS = 4096
_SECONDS = 1.0


@lru_cache(maxsize=2 * MAX_PATTERNS)
def _compiled(pattern: str) -> regex.Pattern[str]:
    import regex

    return regex.compile(pattern)


def match(pattern: str, name: str, *, whole: bool = False) -> regex.Match[str] | None:
    """As `re.match`, or `re.fullmatch` when `whole`.

    Raises:
        InputError: it is no pattern, or did not end within a second.
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
