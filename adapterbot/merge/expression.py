"""Task arithmetic as people write it: `coder + 0.5*math - toxic` (Ilharco et al., 2212.04089)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from adapterbot.errors import InputError

_NUMBER = r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+"


def parse_expression(text: str, names: Sequence[str]) -> list[float]:
    """The weight of each of `names`; one that is not mentioned weighs 0.

    A term is a name, a number times a name, or a name times a number; longer names win, so that
    `dates-eu` is one name where there is one.

    Raises:
        InputError: what it cannot read, and where.
    """
    name = "|".join(re.escape(n) for n in sorted(names, key=len, reverse=True))
    term = re.compile(
        rf"\s*(?P<sign>[+-]?)\s*(?:(?P<before>{_NUMBER})\s*\*\s*)?(?P<name>{name})"
        rf"(?:\s*\*\s*(?P<after>{_NUMBER}))?(?=\s*(?:[+-]|$))\s*"
    )
    weights = dict.fromkeys(names, 0.0)
    at = 0
    while at < len(text) or at == 0:
        found = term.match(text, at)
        if found is None or (at > 0 and not found["sign"]):
            raise InputError(
                f"cannot be read from {text[at : at + 30].strip()!r} on",
                field="--expression",
                fix=f"write terms such as 0.5*{names[0]}, joined by + and -, of "
                + ", ".join(names),
            )
        weight = float(found["before"] or 1) * float(found["after"] or 1)
        weights[found["name"]] += -weight if found["sign"] == "-" else weight
        at = found.end()
    if not all(map(math.isfinite, weights.values())):
        raise InputError("has a weight that is not finite", field="--expression", fix="correct it")
    return list(weights.values())
