"""Text from a model, many rows at once: read the prompts, decode, drop what has ended. (torch)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from adapterbot.eval.base_model import BaseModel
from adapterbot.eval.forward import Forward, left_padded
from adapterbot.eval.key_values import KeyValues
from adapterbot.eval.questions import Ids
from adapterbot.eval.sampling import GREEDY, Choice, next_tokens


@dataclass(frozen=True)
class GenerationRequest:
    """What one row reads and how it goes on.

    Attributes:
        prompt: token ids, at least one.
        limit: the most tokens to answer with.
        stop: strings that end the answer; they are not part of its text.
        choice: greedy, or drawn with a seed.
        begun: the first tokens of the answer, where they are already known.
    """

    prompt: Ids
    limit: int
    stop: tuple[str, ...] = ()
    choice: Choice = GREEDY
    begun: Ids = ()

    @property
    def tokens(self) -> int:
        """The most positions that the row can come to hold."""
        return len(self.prompt) + self.limit


class Writing:
    """One answer in the making: takes token after token and knows when it has ended."""

    def __init__(
        self, request: GenerationRequest, eos: frozenset[int], text: Callable[[Ids], str]
    ) -> None:
        self.request = request
        self.answer = list(request.begun)
        self.ended = False
        self._eos = eos
        self._text = text
        # A stop string lies in the last tokens: each but a few special ones is a byte or more.
        self._tail = max((len(stop.encode()) for stop in request.stop), default=0) + 8

    def take(self, token: int) -> None:
        """Appends a token, unless it is the end-of-text token."""
        if token in self._eos:
            self.ended = True
            return
        self.answer.append(token)
        self.ended = len(self.answer) >= self.request.limit or self._stopped()

    def _stopped(self) -> bool:
        if not self.request.stop:
            return False
        tail = self._text(tuple(self.answer[-self._tail :]))
        return any(stop in tail for stop in self.request.stop)


class Generator:
    """Answers batches of requests with one model."""

    def __init__(self, base: BaseModel, forward: Forward, text: Callable[[Ids], str]) -> None:
        self._base = base
        self._forward = forward
        self._text = text

    def begin(self, request: GenerationRequest) -> Writing:
        """The answer to `request` as far as it is known."""
        return Writing(request, self._base.eos, self._text)

    def answer(self, requests: Sequence[GenerationRequest]) -> list[Ids]:
        """The answers' token ids, in order, without an end-of-text token.

        A stop string is still in the ids; `cut_at_stop` takes it off the text.
        """
        rows = [self.begin(request) for request in requests]
        if self._forward.recurrent:
            self._reread(rows)
        else:
            self._decode(rows)
        return [tuple(row.answer) for row in rows]

    def _decode(self, rows: list[Writing]) -> None:
        """Reads the prompts, then one token per pass for every row, until all have ended."""
        ids, mask, positions = self._read(rows)
        position = positions[:, -1:]
        # The last token is never read, so the room is one less than prompt and answer take.
        left = max(row.request.limit - len(row.answer) for row in rows)
        keys = KeyValues(mask, ids.shape[1] + left - 1)
        tokens = self._write(rows, self._forward.hidden(ids, mask, positions, keys.cache))
        while not all(row.ended for row in rows):
            kept = [index for index, row in enumerate(rows) if not row.ended]
            # Dropping rows copies the keys of those that stay: worth it once a quarter has ended.
            if 4 * len(kept) <= 3 * len(rows):
                rows = [rows[index] for index in kept]
                tokens = [tokens[index] for index in kept]
                position = position[kept]
                keys.keep(kept)
            position = position + 1
            keys.advance()
            ids = torch.tensor(tokens, device=self._base.device)[:, None]
            hidden = self._forward.hidden(ids, keys.mask, position, keys.cache)
            tokens = self._write(rows, hidden)

    def _reread(self, rows: list[Writing]) -> None:
        """As `_decode` for models whose state cannot be kept by position: everything is read anew.

        Quadratic in the length of the answer, and right.
        """
        while rows := [row for row in rows if not row.ended]:
            self._write(rows, self._forward.hidden(*self._read(rows)))

    def _read(self, rows: list[Writing]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        texts = [row.request.prompt + tuple(row.answer) for row in rows]
        return left_padded(texts, self._base.pad, self._base.device)

    def _write(self, rows: list[Writing], hidden: torch.Tensor) -> list[int]:
        """The token that each row's last hidden state predicts, taken by the rows not yet ended."""
        choices = [row.request.choice for row in rows]
        steps = [len(row.answer) for row in rows]
        tokens = chosen(self._forward, hidden[:, -1], choices, steps)
        for row, token in zip(rows, tokens, strict=True):
            if not row.ended:
                row.take(token)
        return tokens


def chosen(
    forward: Forward, hidden: torch.Tensor, choices: Sequence[Choice], steps: Sequence[int]
) -> list[int]:
    """The token that each hidden state goes on with: (n, width) → n tokens.

    `steps` counts the answer's tokens before each.
    """
    tokens: list[int] = []
    for logits in forward.logits(hidden):
        start, stop = len(tokens), len(tokens) + len(logits)
        tokens += next_tokens(logits, choices[start:stop], steps[start:stop])
    return tokens


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """`text` up to the first stop string in it."""
    found = [text.find(string) for string in stop]
    return text[: min((at for at in found if at >= 0), default=len(text))]
