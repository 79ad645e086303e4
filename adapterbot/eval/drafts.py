"""*The other adapter's answer is the draft* (design.md §7): checked in one pass, never believed.

A draft is appended to its prompt and read in a single forward pass, which shows at every position
what this model would have said there. The answer keeps the model's own tokens up to the first that
the draft did not foresee; what is left is decoded like any other answer. So the result is that of
plain decoding whatever the draft says, and costs one pass where nothing changed. (torch)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from adapterbot.eval.base_model import BaseModel
from adapterbot.eval.forward import Forward, left_padded
from adapterbot.eval.generation import GenerationRequest, Generator, chosen
from adapterbot.eval.questions import Ids


@dataclass(frozen=True)
class DraftRequest:
    """A request, and a guess at the tokens of its answer."""

    request: GenerationRequest
    draft: Ids

    @property
    def guess(self) -> Ids:
        """The part worth reading: behind the last token that may be asked, nothing is."""
        return self.draft[: self.request.limit - 1]

    @property
    def tokens(self) -> int:
        """How many positions the check reads."""
        return len(self.request.prompt) + len(self.guess)


@dataclass(frozen=True)
class Checked:
    """How far a draft carried: the answer's first tokens, and whether they are all of it."""

    tokens: Ids
    complete: bool


def check_drafts(
    base: BaseModel, forward: Forward, generator: Generator, drafts: Sequence[DraftRequest]
) -> list[Checked]:
    """Checks one batch of drafts in one pass; every answer gains at least one token."""
    rows = [generator.begin(draft.request) for draft in drafts]
    ids, mask, positions = left_padded(
        [draft.request.prompt + draft.guess for draft in drafts], base.pad, base.device
    )
    hidden = forward.hidden(ids, mask, positions)
    # The prompt's last token predicts the first of the answer, each drafted token the one after it.
    asked = [len(draft.guess) + 1 for draft in drafts]
    wanted = torch.cat([hidden[i, ids.shape[1] - n :] for i, n in enumerate(asked)])
    choices = [d.request.choice for d, n in zip(drafts, asked, strict=True) for _ in range(n)]
    own = iter(chosen(forward, wanted, choices, [step for n in asked for step in range(n)]))
    for row, draft, n in zip(rows, drafts, asked, strict=True):
        predicted = [next(own) for _ in range(n)]
        for token, foreseen in zip(predicted, (*draft.guess, None), strict=True):
            row.take(token)
            if row.ended or token != foreseen:
                break
    return [Checked(tuple(row.answer), row.ended) for row in rows]


class Worth:
    """Whether checking drafts pays, judged by what it has brought so far.

    Costs are counted in tokens read: a check reads prompt and draft once. It saves the decoding of
    every token it settles, each of which costs `_DECODE` times a token that is read among many, and
    where the answer is complete the reading of the prompt as well.
    """

    # Measured on a 4 M Llama, 2 CPU cores, batch 32 to 128: 2 to 3. On a GPU decoding is bound by
    # memory and reading is not, so that the true ratio is far higher; this is the careful side.
    _DECODE = 2.0

    def __init__(self) -> None:
        self._spent = 0.0
        self._saved = 0.0

    @property
    def pays(self) -> bool:
        """True until the account is in the red."""
        return self._saved >= self._spent

    def book(self, draft: DraftRequest, checked: Checked) -> None:
        """Enters one checked draft."""
        self._spent += draft.tokens
        self._saved += self._DECODE * len(checked.tokens)
        if checked.complete:
            self._saved += len(draft.request.prompt)


def pilot(count: int) -> list[int]:
    """A few of `count` requests, evenly spread, to be checked before the rest: about one in twenty.

    Where no draft holds, they are all that is lost.
    """
    size = min(count, max(4, count // 20))
    return sorted({(2 * k + 1) * count // (2 * size) for k in range(size)}) if size else []
