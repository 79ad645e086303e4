"""How long a server asks to be left alone (RFC 9110 §10.2.3)."""

from __future__ import annotations

import time
from datetime import UTC
from email.utils import parsedate_to_datetime


def retry_after(given: str | None) -> float | None:
    """Seconds from now that a `Retry-After` asks for, by number or date; None where there is none
    that can be read."""
    given = (given or "").strip()
    if given.isascii() and given.isdigit():
        return float(given[:6])  # a week and more
    try:
        moment = parsedate_to_datetime(given)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - time.time())
