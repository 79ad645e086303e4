"""A report's samples as JSON that a page can hold: inert both as HTML and as what it says.

Nothing that a browser gives a meaning is left in it: `<`, `>` and `&` are escaped as JSON allows,
and so is all that is not ASCII. What nobody would see (bidi controls, zero-width signs) is spelled
out before that, so that the page shows it and a search finds it.
"""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from adapterbot.differing import Pair
from adapterbot.pages import figures
from adapterbot.pages.inert import visible_lines
from adapterbot.records import SampleDiff

# Ten thousand samples of two kilobytes, with room to spare; a browser reads it in a second.
BYTES_LIMIT: Final = 32 * 1024 * 1024
_ACTIVE = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&"}


@dataclass(frozen=True)
class Embedded:
    """What goes into a `<script type="application/json">`, and how much of what there is."""

    json: Markup
    listed: int
    changed: int
    left_out: int


def embed(
    pairs: Sequence[Pair], limit: int = BYTES_LIMIT, *, ticked: Container[str] = ()
) -> Embedded:
    """The pairs, in their order, until `limit` bytes are used.

    Args:
        ticked: the tasks in which a score of 1 is right and one of 0 wrong.
    """
    rows: list[str] = []
    used = 0
    for pair in pairs:
        row = json.dumps(
            _row(pair, ticked=pair.diff.task in ticked), separators=(",", ":")
        ).translate(_ACTIVE)
        used += len(row) + 1
        if used > limit:
            break
        rows.append(row)
    return Embedded(
        json=Markup("[" + ",\n".join(rows) + "]"),  # noqa: S704 - escaped above
        listed=len(rows),
        changed=sum(pair.changed for pair in pairs),
        left_out=len(pairs) - len(rows),
    )


def _row(pair: Pair, *, ticked: bool) -> dict[str, Any]:
    """One sample as the page's script reads it; what is None is not there."""
    diff = pair.diff
    row = {
        "task": visible_lines(diff.task),
        "slice": None if diff.slice is None else visible_lines(diff.slice),
        "id": visible_lines(diff.sample_id),
        "prompt": visible_lines(diff.prompt),
        "expected": visible_lines(diff.expected),
        "before": visible_lines(diff.baseline_output),
        "after": visible_lines(diff.candidate_output) if pair.changed else None,
        "was": figures.score(diff.baseline_score, ticked=ticked),
        "now": figures.score(diff.candidate_score, ticked=ticked),
        "effect": _effect(diff) if pair.changed else None,
    }
    return {name: value for name, value in row.items() if value is not None}


def _effect(diff: SampleDiff) -> str:
    """Whether the score became worse, better, or neither while the answer changed."""
    if not diff.harm:
        return "other"
    return "worse" if diff.harm > 0 else "better"
