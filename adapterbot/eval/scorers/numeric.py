"""The number an answer ends with (or begins with) is close enough to the expected one."""

from __future__ import annotations

import re
from decimal import Context, Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.base import RIGHT, WRONG, Scorer
from adapterbot.records import Finite

# A number stands alone on its left: "v2" holds none, and in "3-4" the "-" is a dash. Exponents
# have at most three digits, since Decimal takes "1e999999999" at its word.
_NUMBER = (
    r"(?<![\w{point}])[-+]?"
    r"(?:(?:[0-9]{{1,3}}(?:{group}[0-9]{{3}})+(?![0-9])|[0-9]+)(?:{point}[0-9]+)?|{point}[0-9]+)"
    r"(?:[eE][-+]?[0-9]{{1,3}}(?![0-9]))?"
)
_ENGLISH = re.compile(_NUMBER.format(point=r"\.", group=","))
_EUROPEAN = re.compile(_NUMBER.format(point=",", group=r"\."))
_LONGEST = 400  # digits; what is longer is noise, not an answer
_CONTEXT = Context(prec=2 * _LONGEST, traps=[])


class Numeric(Scorer):
    """1 when |x − e| ≤ max(tolerance, relative · |e|), in exact decimal arithmetic.

    x is the answer's last (or first) number, e the number in `expected`. Thousands separators
    and the Unicode minus are understood; `decimal: ","` reads "1.234,5" as 1234.5. An answer
    without a number is wrong.
    """

    name: ClassVar[str] = "numeric"

    tolerance: Annotated[Finite, Field(ge=0)] = 0.0
    relative: Annotated[Finite, Field(ge=0)] = 0.0
    pick: Literal["last", "first"] = "last"
    decimal: Literal[".", ","] = "."

    def check(self, sample: Sample) -> str | None:
        """What is expected is one number; which, would otherwise be a guess."""
        found = self._numbers(sample.expected)
        return None if len(found) == 1 else f"has {len(found)} numbers in `expected`, not one"

    def score(self, sample: Sample, answer: Answer) -> Scored:
        said = self._numbers(answer.text)
        if not said:
            return WRONG
        expected = self._numbers(sample.expected)[0]
        # str() of a float is the decimal the user wrote: 0.1 is 0.1 here, not 0.1000…0555.
        allowed = max(
            Decimal(str(self.tolerance)),
            _CONTEXT.multiply(Decimal(str(self.relative)), abs(expected)),
        )
        distance = _CONTEXT.abs(
            _CONTEXT.subtract(said[0 if self.pick == "first" else -1], expected)
        )
        return RIGHT if distance <= allowed else WRONG

    def _numbers(self, text: str) -> list[Decimal]:
        pattern, group = (_ENGLISH, ",") if self.decimal == "." else (_EUROPEAN, ".")
        found = pattern.findall(text.replace("\N{MINUS SIGN}", "-"))
        return [
            Decimal(literal.replace(group, "").replace(",", "."))
            for literal in found
            if len(literal) <= _LONGEST
        ]
