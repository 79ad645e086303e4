"""Text from a model, many rows at once: prefill, verify drafts, decode, drop what is finished.

*The other adapter's answer is the draft* (design.md §7): it is appended to the prompt and checked
in the same forward pass that reads the prompt. A row keeps the draft's tokens up to the first that
its own model would not have chosen, and decodes from there; so the answer is that of plain decoding
whatever the draft says, and costs one pass where nothing changed. (torch)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from adapterbot.eval.base_model import BaseModel
from adapterbot.eval.forward import Forward, left_padded
from adapterbot.eval.key_values import KeyValues
from adapterbot.eval.prompts import Ids
from adapterbot.eval.sampling import GREEDY, Choice, next_tokens


@dataclass(frozen=True)
class GenerationRequest:
    """What one row reads and how it goes on.

    Attributes:
        prompt: token ids, at least one.
        limit: the most tokens to answer with.
        stop: strings that end the answer; they are not part of it.
        choice: greedy, or drawn with a seed.
        draft: a guess at the answer's tokens; wrong guesses cost time, never change the answer.
    """

    prompt: Ids
    limit: int
    stop: tuple[str, ...] = ()
    choice: Choice = GREEDY
    draft: Ids = ()

    @property
    def tokens(self) -> int:
        """The most positions that the row can come to hold."""
        return len(self.prompt) + self.limit

    @property
    def drafted(self) -> Ids:
        """The part of the draft worth reading: what follows the last token is never asked."""
        return self.draft[: self.limit - 1]


@dataclass
class _Row:
    """One answer in the making. `read` counts the positions whose keys are kept."""

    request: GenerationRequest
    read: int
    answer: list[int] = field(default_factory=list)
    ended: bool = False


class Generator:
    """Answers batches of requests with one model."""

    def __init__(self, base: BaseModel, forward: Forward, text: Callable[[Ids], str]) -> None:
        self._base = base
        self._forward = forward
        self._text = text

    def answer(self, requests: Sequence[GenerationRequest]) -> list[Ids]:
        """The answers' token ids, in order, without an end-of-text token.

        A stop string is still in the ids; `cut_at_stop` takes it off the text.
        """
        rows = [_Row(r, len(r.prompt) + len(r.drafted)) for r in requests]
        keys = self._read_prompts(rows)
        alive = [row for row in rows if not row.ended]
        self._decode(alive, keys)
        return [tuple(row.answer) for row in rows]

    def _read_prompts(self, rows: list[_Row]) -> KeyValues:
        """Reads prompts and drafts in one pass; keeps the keys of rows that go on."""
        base = self._base
        ids, mask, positions = left_padded(
            [row.request.prompt + row.request.drafted for row in rows], base.pad, base.device
        )
        keys = KeyValues()
        hidden = self._forward.hidden(ids, mask, positions, keys.cache)
        # The last prompt token predicts the first of the answer, each draft token the one after it.
        asked = [len(row.request.drafted) + 1 for row in rows]
        wanted = torch.cat([hidden[i, ids.shape[1] - n :] for i, n in enumerate(asked)])
        choices = [row.request.choice for row, n in zip(rows, asked, strict=True) for _ in range(n)]
        steps = [step for n in asked for step in range(n)]
        predicted = self._choose(wanted, choices, steps)
        for row, n in zip(rows, asked, strict=True):
            self._accept(row, predicted[:n])
            predicted = predicted[n:]
        kept = [index for index, row in enumerate(rows) if not row.ended]
        keys.keep(
            kept,
            [ids.shape[1] - len(r.request.prompt + r.request.drafted) for r in rows],
            [row.read for row in rows],
        )
        return keys

    def _accept(self, row: _Row, predicted: list[int]) -> None:
        """Takes the model's own tokens up to the first that the draft did not foresee."""
        drafted = row.request.drafted
        row.read = len(row.request.prompt)
        for index, token in enumerate(predicted):
            self._take(row, token)
            if row.ended or index == len(drafted) or token != drafted[index]:
                return
            row.read += 1

    def _take(self, row: _Row, token: int) -> None:
        if token in self._base.eos:
            row.ended = True
            return
        row.answer.append(token)
        row.ended = len(row.answer) >= row.request.limit or self._stopped(row)

    def _stopped(self, row: _Row) -> bool:
        if not row.request.stop:
            return False
        # A stop string lies in the last tokens: each but a few special ones is a byte or more.
        longest = max(len(stop.encode()) for stop in row.request.stop)
        tail = self._text(tuple(row.answer[-(longest + 8) :]))
        return any(stop in tail for stop in row.request.stop)

    def _decode(self, rows: list[_Row], keys: KeyValues) -> None:
        """One token per pass for every row, until all have ended."""
        device = self._base.device
        while rows:
            ids = torch.tensor([[row.answer[-1]] for row in rows], device=device)
            positions = torch.tensor([[row.read] for row in rows], device=device)
            hidden = self._forward.hidden(ids, keys.mask_with_next(), positions, keys.cache)
            keys.grown()
            chosen = self._choose(
                hidden[:, -1], [r.request.choice for r in rows], [len(r.answer) for r in rows]
            )
            for row, token in zip(rows, chosen, strict=True):
                row.read += 1
                if not row.ended:
                    self._take(row, token)
            rows = self._without_ended(rows, keys)

    def _without_ended(self, rows: list[_Row], keys: KeyValues) -> list[_Row]:
        """Drops ended rows once they are a quarter: a drop copies the keys of those that stay."""
        kept = [index for index, row in enumerate(rows) if not row.ended]
        if 4 * len(kept) > 3 * len(rows):
            return rows
        keys.keep_rows(kept)
        return [rows[index] for index in kept]

    def _choose(self, hidden: torch.Tensor, choices: list[Choice], steps: list[int]) -> list[int]:
        tokens: list[int] = []
        for logits in self._forward.logits(hidden):
            done = len(tokens)
            n = len(logits)
            tokens += next_tokens(logits, choices[done : done + n], steps[done : done + n])
        return tokens


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """`text` up to the first stop string in it."""
    found = [text.find(string) for string in stop]
    return text[: min((at for at in found if at >= 0), default=len(text))]
