"""Text from a model, many rows at once: prompts and drafts are read, the rest decoded. (torch)

*The other adapter's answer is the draft* (design.md §7). It is appended to its prompt and read with
it in one pass, which shows at every position what this model would have said there. So the result
is that of plain decoding whatever the draft says, and costs one pass where nothing changed. Rows
that part from their drafts are not decoded there and then: the few of each batch would take as
many passes as a full one. Whoever asked has them decoded together (`respondent`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest

import torch

from adapterbot.eval.base_model import BaseModel
from adapterbot.eval.batches import cost
from adapterbot.eval.forward import Forward
from adapterbot.eval.questions import Ids
from adapterbot.eval.reading import Reader, Rows
from adapterbot.eval.sampling import GREEDY, NONE, Choice, next_tokens
from adapterbot.eval.stopping import Stopping

# How many positions of a draft the head looks at before it looks at more.
_FIRST_ASKED = 16
# Ends of answers whose text is kept: a few MB.
_TAILS_KEPT = 16 * 1024


@dataclass(frozen=True)
class GenerationRequest:
    """What one row reads and how it goes on.

    Attributes:
        prompt: token ids, at least one.
        limit: the most tokens to answer with.
        stop: strings that end the answer; they are not part of its text.
        ends: tokens that end it beside the base's own end-of-text.
        choice: greedy, or drawn with a seed.
        begun: the first tokens of the answer, where they are already known.
        draft: a guess at the whole answer. It is never believed: an answer keeps the model's own
            tokens up to the first that the draft did not foresee, and goes on from there.
        stem: how many of the prompt's tokens are read once for all that begin with them.
        variant: which of several variants of the model answers.
    """

    prompt: Ids
    limit: int
    stop: tuple[str, ...] = ()
    choice: Choice = GREEDY
    begun: Ids = ()
    draft: Ids = ()
    stem: int = 0
    variant: int = 0
    ends: frozenset[int] = frozenset()

    @property
    def guess(self) -> Ids:
        """The part of the draft worth reading: behind the last token that is asked, nothing is."""
        return self.draft[: self.limit - 1]

    @property
    def read(self) -> int:
        """What it costs to check the draft, in positions that are read."""
        return cost(self.stem, len(self.prompt)) + len(self.guess)

    @property
    def checked(self) -> int:
        """How many positions its row has while the draft is checked: a stem is read once, but its
        keys are copied to every row."""
        return len(self.prompt) + len(self.guess)

    @property
    def longest(self) -> int:
        """The most positions that its keys can come to hold."""
        return len(self.prompt) + self.limit

    @property
    def passes(self) -> int:
        """In how many passes it may be decoded, as the power of 1.26 that is next above.

        A batch takes as many as its slowest row; a few more or less are not worth parting rows of
        like length. An answer that has begun is taken to become about as long as its draft.
        """
        left = self.limit
        if self.begun:
            left = min(left, max(len(self.draft) + 1, len(self.begun) + 1)) - len(self.begun)
        return math.ceil(3 * math.log2(left))


class Writing:
    """One answer in the making: takes token after token and knows when it has ended.

    Attributes:
        answer: its tokens so far.
        ended: nothing comes any more.
        lost: it ended because the model's numbers did.
    """

    def __init__(self, request: GenerationRequest, eos: frozenset[int], stopping: Stopping) -> None:
        self.request = request
        self.answer = list(request.begun)
        self.ended = self.lost = False
        self._eos = eos | request.ends
        self._stopping = stopping

    @property
    def last(self) -> int:
        """The token that is read next. Of a row that has ended anything will do."""
        return self.answer[-1] if self.answer else self.request.prompt[-1]

    @property
    def ids(self) -> Ids | None:
        """The answer; None where there is none."""
        return None if self.lost else tuple(self.answer)

    def take(self, token: int) -> None:
        """Appends a token, unless it is the end-of-text token, or none."""
        if token == NONE:
            self.ended = self.lost = True
            return
        if token in self._eos:
            self.ended = True
            return
        self.answer.append(token)
        self.ended = len(self.answer) >= self.request.limit or self._stopping.stopped(
            self.answer, self.request.stop
        )


class Generator:
    """Answers batches of requests with one model."""

    def __init__(
        self, base: BaseModel, forward: Forward, reader: Reader, text: Callable[[Ids], str]
    ) -> None:
        self._base = base
        self._forward = forward
        self._reader = reader
        # Probes and candidates of a merge mostly say what was said before, token by token.
        self._stopping = Stopping(lru_cache(maxsize=_TAILS_KEPT)(text))

    def answer(self, requests: Sequence[GenerationRequest]) -> list[Ids | None]:
        """The answers' token ids, in order, without an end-of-text token; None where the model's
        logits are not finite.

        A stop string is still in the ids; `cut_at_stop` takes it off the text.
        """
        rows = [Writing(request, self._base.eos, self._stopping) for request in requests]
        shortest = min(len(request.prompt) for request in requests)
        # The last token is never read.
        if self._forward.keeps(shortest, max(request.longest for request in requests) - 1):
            self._decode(rows)
        else:
            self._reread(rows)
        return [row.ids for row in rows]

    def check(self, requests: Sequence[GenerationRequest]) -> list[tuple[Ids | None, bool]]:
        """What one pass over prompt and draft settles: the answer's first tokens, at least one,
        and whether they are all of it; None is an answer as `answer`'s. Nothing where prompt and
        draft are not read alike."""
        rows = [Writing(request, self._base.eos, self._stopping) for request in requests]
        turn = self._forward.turn
        alike = [
            row
            for row in rows
            if not len(row.request.prompt) <= turn < len(row.request.prompt + row.request.guess)
        ]
        if alike:
            guesses = [row.request.guess for row in alike]
            self._settle(alike, self._read(alike, guesses, None).hidden)
        return [(row.ids, row.ended) for row in rows]

    def _decode(self, rows: list[Writing]) -> None:
        """Reads the prompts, then one token per pass for every row, until all have ended."""
        # The last token is never read, so the room is one less than the answer takes.
        left = max(row.request.limit - len(row.answer) for row in rows)
        read = self._read(rows, [()] * len(rows), left - 1)
        position, keys = read.position, read.keys
        assert keys is not None  # noqa: S101 asked for
        self._write(rows, read.hidden)
        while not all(row.ended for row in rows):
            kept = [index for index, row in enumerate(rows) if not row.ended]
            # Dropping rows copies the keys of those that stay: worth it once a quarter has ended.
            if 4 * len(kept) <= 3 * len(rows):
                rows = [rows[index] for index in kept]
                position = position[kept]
                keys.keep(kept)
            position = position + 1
            keys.advance()
            last = [row.last for row in rows]
            ids = torch.tensor(last, device=self._base.device)[:, None]
            hidden = self._forward.hidden(ids, keys.mask, position, keys.cache, _variants(rows))
            self._write(rows, hidden)

    def _reread(self, rows: Sequence[Writing]) -> None:
        """As `_decode` where nothing that was read can be kept: everything is read anew.

        Quadratic in the length of the answer, and right.
        """
        while rows := [row for row in rows if not row.ended]:
            self._write(rows, self._read(rows, [()] * len(rows), None).hidden)

    def _read(self, rows: Sequence[Writing], guesses: Sequence[Ids], more: int | None) -> Rows:
        texts = [
            row.request.prompt + tuple(row.answer) + guess
            for row, guess in zip(rows, guesses, strict=True)
        ]
        stems = [row.request.stem for row in rows]
        return self._reader.read(texts, stems, _variants(rows), more)

    def _settle(self, rows: Sequence[Writing], hidden: torch.Tensor) -> None:
        """Each row takes the model's own tokens up to the first that its draft did not foresee.

        The prompt's last token predicts the first of the answer, each drafted token the one after
        it. The head runs over a few positions first, and over more where all of those held.
        """
        asked = [len(row.request.guess) + 1 for row in rows]
        first = [hidden.shape[1] - count for count in asked]
        begun = [len(row.answer) for row in rows]
        alive, start, stop = list(range(len(rows))), 0, _FIRST_ASKED
        while alive:
            spans = [(i, min(stop, asked[i])) for i in alive]
            wanted = torch.cat([hidden[i, first[i] + start : first[i] + end] for i, end in spans])
            choices = [rows[i].request.choice for i, end in spans for _ in range(start, end)]
            steps = [begun[i] + k for i, end in spans for k in range(start, end)]
            own = iter(chosen(self._forward, wanted, choices, steps))
            alive = []
            for i, end in spans:
                predicted = [next(own) for _ in range(start, end)]
                if _taken(rows[i], predicted, rows[i].request.guess[start:end]) and end < asked[i]:
                    alive.append(i)
            start, stop = stop, 4 * stop

    def _write(self, rows: Sequence[Writing], hidden: torch.Tensor) -> None:
        """The token that each row's last hidden state predicts, taken by the rows not yet ended."""
        choices = [row.request.choice for row in rows]
        steps = [len(row.answer) for row in rows]
        tokens = chosen(self._forward, hidden[:, -1], choices, steps)
        for row, token in zip(rows, tokens, strict=True):
            if not row.ended:
                row.take(token)


def _variants(rows: Sequence[Writing]) -> list[int]:
    return [row.request.variant for row in rows]


def _taken(row: Writing, predicted: Sequence[int], foreseen: Sequence[int]) -> bool:
    """Takes the tokens that were foreseen and the one behind them; whether the row goes on."""
    for token, guess in zip_longest(predicted, foreseen):
        row.take(token)
        if row.ended or token != guess:
            return False
    return True


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
