"""The model finds the right choice the likeliest."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from adapterbot.eval.answers import Answer, Request, Sample, Scored
from adapterbot.eval.scorers.base import RIGHT, WRONG, Scorer


class MultipleChoice(Scorer):
    """1 when argmaxᵢ log P(choiceᵢ | prompt) / lengthᵢ is the expected choice.

    `normalise` is the length: `none` (1), `tokens` or `bytes`. `expected` is a choice's text, its
    0-based index (a JSON number, or digits that are no choice's text) or its letter (A, B, …).
    Ties go to the first choice, as argmax does.
    """

    name: ClassVar[str] = "multiple_choice"
    request: ClassVar[Request] = Request.CHOICES

    normalise: Literal["none", "tokens", "bytes"] = "none"

    def check(self, sample: Sample) -> str | None:
        """Fewer than two choices decide nothing."""
        if len(sample.choices) < 2:
            return "has fewer than two `choices`"
        if not all(sample.choices):
            return "has an empty choice"
        if len(set(sample.choices)) != len(sample.choices):
            return "has the same choice twice"
        if expected_index(sample) is None:
            return "has an `expected` that is none of its choices (text, index from 0, or letter)"
        return None

    def score(self, sample: Sample, answer: Answer) -> Scored:
        likelihoods = answer.loglikelihoods
        if len(likelihoods) != len(sample.choices) or any(map(math.isnan, likelihoods)):
            return Scored(None, "no log-likelihood for every choice")
        lengths: tuple[int, ...] = (1,) * len(likelihoods)
        if self.normalise != "none":
            lengths = answer.token_counts if self.normalise == "tokens" else answer.byte_counts
        values = [ll / max(length, 1) for ll, length in zip(likelihoods, lengths, strict=True)]
        return RIGHT if values.index(max(values)) == expected_index(sample) else WRONG


def expected_index(sample: Sample) -> int | None:
    """Which choice `expected` means, None when it means none."""
    raw = sample.fields.get("expected", sample.expected)
    count = len(sample.choices)
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw if 0 <= raw < count else None
    text = sample.expected
    if text in sample.choices:
        return sample.choices.index(text)
    if text.isascii() and text.isdigit() and len(text) < 4:
        return int(text) if int(text) < count else None
    if len(text) == 1 and "A" <= text.upper() <= "Z":
        index = ord(text.upper()) - ord("A")
        return index if index < count else None
    return None
