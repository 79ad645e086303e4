"""How long a search may take, as people write it: `90s`, `45m`, `1h30m`."""

from __future__ import annotations

import re

from adapterbot.errors import InputError

LEAST, MOST = 60, 24 * 3600
_FORM = re.compile(r"(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?")


def parse_budget(text: str) -> int:
    """Seconds, from 60 to 86,400.

    Raises:
        InputError: it is no such duration, or outside these limits.
    """
    found = _FORM.fullmatch(text.strip().lower())
    if not text.strip() or found is None:
        raise InputError(
            f"is {text[:40]!r}, not a duration", field="--budget", fix="write 90s, 45m or 1h30m"
        )
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    total = 3600 * hours + 60 * minutes + seconds
    if not LEAST <= total <= MOST:
        raise InputError(
            f"is {total:,} seconds", field="--budget", fix="give it between 60s and 24h"
        )
    return total
