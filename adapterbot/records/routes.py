"""Which experts of a mixture each token of a text used."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, model_validator

from adapterbot.records.base import Count, Name, Probability, Record


class TokenRoute(Record):
    """One token: its text, whether the model wrote it, and every expert's weight in every layer.

    Shapes: `weights` (layers, N), each row summing to 1 over the K experts that were used.
    """

    token: str
    written: bool
    weights: tuple[tuple[Probability, ...], ...]

    @property
    def shares(self) -> tuple[float, ...]:
        """(N,): the mean weight over the layers."""
        return tuple(sum(column) / len(self.weights) for column in zip(*self.weights, strict=True))


class Routes(Record):
    """A text's tokens and the experts, in the gate's order.

    `layers` are the numbers of the decoder layers that have weights, the base's first being 0.
    """

    experts: Annotated[tuple[Name, ...], Field(min_length=1)]
    layers: tuple[Count, ...]
    tokens: tuple[TokenRoute, ...]

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        layers = {len(token.weights) for token in self.tokens} | {len(self.layers)}
        widths = {len(row) for token in self.tokens for row in token.weights}
        if len(layers) > 1 or widths - {len(self.experts)}:
            raise ValueError("every token needs a weight for each expert in each layer")
        return self

    def shares(self, *, written: bool) -> tuple[float, ...]:
        """(N,): the mean weight over the prompt's tokens, or over the answer's.

        A token is written where the one before it is read, by the weights of that one.
        """
        if written:
            chosen = [before.shares for before, token in pairwise(self.tokens) if token.written]
        else:
            chosen = [token.shares for token in self.tokens if not token.written]
        if not chosen:
            return ()
        return tuple(sum(column) / len(chosen) for column in zip(*chosen, strict=True))
