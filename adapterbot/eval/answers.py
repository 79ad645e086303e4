"""What is asked of a model and what comes back, one sample at a time.

These records pass between the suite (which asks), the engine (which answers) and the scorers
(which judge). Nothing here knows of a file format, a model or a metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, NamedTuple

from pydantic import Field, JsonValue

from adapterbot.records import Finite, Name, Record


class Message(Record):
    """One turn of a chat."""

    role: Name
    content: str


class GenerationSettings(Record):
    """How text is generated; `temperature` 0 is greedy."""

    max_new_tokens: Annotated[int, Field(ge=1, le=131_072)] = 64
    temperature: Annotated[Finite, Field(ge=0.0, le=100.0)] = 0.0
    top_p: Annotated[Finite, Field(gt=0.0, le=1.0)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()


class Sample(Record):
    """One question. `messages`, where given, is what is asked; `prompt` is then how it reads.

    `expected` is text whatever the row held (JSON for what is not text); `fields` is the row
    itself, with the names of the suite's `fields` mapping added.
    """

    id: Name
    prompt: str
    messages: tuple[Message, ...] | None = None
    expected: str = ""
    choices: tuple[str, ...] = ()
    slice: Name | None = None
    cluster: Name | None = None
    fields: Mapping[str, JsonValue] = {}


class Request(StrEnum):
    """What a scorer needs to know of the model's answer."""

    GENERATE = "generate"  # the text that follows the prompt
    CHOICES = "choices"  # log P(choice | prompt), for each of `choices`
    LIKELIHOOD = "likelihood"  # log P(expected | prompt); the prompt is "" for whole texts
    ROLLING = "rolling"  # log P(expected), a whole text, in windows as lm-eval reads it


@dataclass(frozen=True)
class Answer:
    """What one adapter said to one sample.

    `loglikelihoods` are natural logarithms summed over tokens. With `token_counts` and
    `byte_counts` (UTF-8) they have one entry per choice for `Request.CHOICES`, one entry for
    `Request.LIKELIHOOD` and `ROLLING`, none for generated text. `greedy` tells for each whether the
    model would have written it; it is empty where nobody knows. `seconds` is the sample's share of
    its batch's wall time, by the positions that it took of it: a comparison between adapters, which
    are asked in the same batches, and not what one user would have waited. None when it was not
    measured.
    """

    text: str = ""
    token_ids: tuple[int, ...] = ()
    loglikelihoods: tuple[float, ...] = ()
    token_counts: tuple[int, ...] = ()
    byte_counts: tuple[int, ...] = ()
    greedy: tuple[bool, ...] = ()
    seconds: float | None = field(default=None, compare=False)


class Scored(NamedTuple):
    """A score, or the reason why there is none; exactly one of the two is given.

    `stats` are the additive sufficient statistics of a corpus metric (see `CorpusScorer`).
    """

    score: float | None
    missing: str | None = None
    stats: tuple[float, ...] = ()


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """`text` up to the first stop string in it."""
    found = [text.find(string) for string in stop]
    return text[: min((at for at in found if at >= 0), default=len(text))]
