"""The answer is JSON."""

from __future__ import annotations

from typing import ClassVar, Literal

from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.base import RIGHT, WRONG, Scorer
from adapterbot.eval.scorers.json_text import json_of

_KINDS: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "container": (dict, list),
    "any": object,
}


class JsonValid(Scorer):
    """1 when the answer is strict JSON of the wanted `type`.

    `extract`: JSON inside a Markdown fence, with prose around it, counts too.
    """

    name: ClassVar[str] = "json"

    type: Literal["any", "object", "array", "container"] = "any"
    extract: bool = False

    def score(self, sample: Sample, answer: Answer) -> Scored:
        try:
            value = json_of(answer.text, extract=self.extract)
        except ValueError:
            return WRONG
        return RIGHT if isinstance(value, _KINDS[self.type]) else WRONG
