"""Whole texts of any length, in the windows in which lm-eval reads them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from adapterbot.eval.questions import Ids

# What lm-eval takes for a model that names no length (`HFLM._DEFAULT_MAX_LENGTH`).
LENGTH = 2048


def windows(tokens: Ids, first: int, length: int) -> Iterator[tuple[Ids, Ids]]:
    """The contexts and continuations that make up a text, each token being in one continuation.

    As `lm_eval.utils.get_rolling_token_windows` with a context of one token: the first window
    predicts all it holds, the next ones go on where it ended, and the last reaches back for as much
    context as there is room for.

    Args:
        tokens: of the whole text.
        first: the token that goes before it.
        length: how many positions the model reads at once.
    """
    text = (first, *tokens)
    start = 1
    while start < len(text):
        stop = min(start + length, len(text))
        yield text[max(0, stop - length - 1) : start], text[start:stop]
        start = stop
