"""log P(continuation | context), many at once, without a vocabulary × length tensor. (torch)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from adapterbot.eval.base_model import BaseModel
from adapterbot.eval.forward import Forward, right_padded
from adapterbot.eval.questions import Ids
from adapterbot.eval.reading import Reader
from adapterbot.eval.trees import tree

# A tree wants a mask of every position for every other. On a CPU that costs 0.9 of copying the
# context's keys behind 100 tokens, 1.05 behind 500 and 1.6 behind 4,000.
LONGEST_TREE = 256


@dataclass(frozen=True)
class LikelihoodRequest:
    """How likely is each of `continuations` after `context`? None of them may be empty.

    `stem` is how many of the context's tokens, not all, are read once for all that begin with them;
    `variant`, which of several variants of the model is asked; `greedy`, whether somebody wants to
    know if the model would have written them.
    """

    context: Ids
    continuations: tuple[Ids, ...]
    stem: int = 0
    variant: int = 0
    greedy: bool = False

    @property
    def longest(self) -> int:
        """Positions of its longest row: the last token is asked for and never read."""
        return len(self.context) + max(map(len, self.continuations)) - 1

    def held(self, trees: int) -> int:
        """How many positions the request takes, those of a stem among them: it is read once, but
        its keys are copied to every row.

        Args:
            trees: up to which length continuations share their context's row.
        """
        if self.longest <= trees:
            return len(self.context) + sum(len(c) - 1 for c in self.continuations)
        if len(self.continuations) == 1:
            return self.longest
        # They go on from copies of their context's keys, which are there meanwhile.
        return (len(self.continuations) + 1) * self.longest

    @property
    def common(self) -> Ids:
        """What all continuations begin with, short of the last token of the shortest."""
        shortest = min(map(len, self.continuations)) - 1
        first = self.continuations[0]
        for size in range(shortest):
            if any(other[size] != first[size] for other in self.continuations):
                return first[:size]
        return first[:shortest]


class Likelihood(NamedTuple):
    """A continuation's Σ_t log P(continuation_t | context, continuation_<t), natural logarithm, and
    whether each of its tokens is the likeliest there; None where nobody asked."""

    value: float
    greedy: bool | None


def loglikelihoods(
    base: BaseModel, forward: Forward, reader: Reader, requests: Sequence[LikelihoodRequest]
) -> list[tuple[Likelihood, ...]]:
    """How likely every continuation is.

    Where a context has several continuations it is read once. They follow it as a tree in the same
    pass; or, behind a long one and where the model takes no trees, go on from its keys and values
    with what all of them begin with read before. The head runs over the continuations only.

    Returns: for each request one value per continuation.
    """
    longest = max(request.longest for request in requests)
    single = all(len(request.continuations) == 1 for request in requests)
    if single or forward.recurrent or not forward.keeps(0, longest):
        return _in_one_pass(forward, reader, requests)
    if longest <= LONGEST_TREE and forward.tolerates_trees(longest):
        return _as_trees(forward, reader, requests)
    return _behind_shared_contexts(base, forward, reader, requests)


def _in_one_pass(
    forward: Forward, reader: Reader, requests: Sequence[LikelihoodRequest]
) -> list[tuple[Likelihood, ...]]:
    continuations = [c for request in requests for c in request.continuations]
    rows = [(r.context + c)[:-1] for r in requests for c in r.continuations]
    stems = [r.stem for r in requests for _ in r.continuations]
    variants = [r.variant for r in requests for _ in r.continuations]
    hidden = reader.read(rows, stems, variants, None).hidden
    wanted = torch.cat([hidden[i, -len(c) :] for i, c in enumerate(continuations)])
    return _by_request(requests, _tokens(forward, wanted, continuations, _greedy(requests)))


def _as_trees(
    forward: Forward, reader: Reader, requests: Sequence[LikelihoodRequest]
) -> list[tuple[Likelihood, ...]]:
    trees = [tree(request.continuations) for request in requests]
    rows = [request.context + own.ids for request, own in zip(requests, trees, strict=True)]
    stems, variants = [r.stem for r in requests], [r.variant for r in requests]
    # Options of one token each leave no nodes, and the usual mask will do.
    ends = trees if any(own.ids for own in trees) else ()
    hidden = reader.read(rows, stems, variants, None, ends).hidden
    # Every node predicts something, and so does the context's last token before them.
    wanted = torch.cat([hidden[i, -len(own.ids) - 1 :] for i, own in enumerate(trees)])
    starts = accumulate((len(own.ids) + 1 for own in trees), initial=1)
    at = [
        start + node
        for start, own in zip(starts, trees, strict=False)
        for path in own.paths
        for node in path
    ]
    continuations = [c for request in requests for c in request.continuations]
    found = _tokens(forward, wanted, continuations, _greedy(requests), at)
    return _by_request(requests, found)


def _behind_shared_contexts(
    base: BaseModel, forward: Forward, reader: Reader, requests: Sequence[LikelihoodRequest]
) -> list[tuple[Likelihood, ...]]:
    owners = [i for i, request in enumerate(requests) for _ in request.continuations]
    begun = [request.common for request in requests]
    continuations = [c for request in requests for c in request.continuations]
    rests = [c[len(begun[i]) :] for i, c in zip(owners, continuations, strict=True)]
    contexts = [request.context + common for request, common in zip(requests, begun, strict=True)]
    stems = [request.stem for request in requests]
    variants = [request.variant for request in requests]
    read = reader.read(contexts, stems, variants, max(map(len, rests)) - 1)
    keys = read.keys
    assert keys is not None  # noqa: S101 asked for
    greedy = _greedy(requests)
    # A context predicts what its continuations begin with, and the next token of each.
    shared = _tokens(
        forward,
        torch.cat([read.hidden[i, -len(c) - 1 : -1] for i, c in enumerate(begun)]),
        begun,
        greedy,
    ).split([len(common) for common in begun])
    first = _tokens(forward, read.hidden[owners, -1], [rest[:1] for rest in rests], greedy)
    parts = [torch.cat([shared[i], value]) for i, value in zip(owners, first.split(1), strict=True)]
    longer = [i for i, rest in enumerate(rests) if len(rest) > 1]
    for group in reader.groups([len(rests[i]) - 1 for i in longer]) if longer else ():
        members = [longer[place] for place in group]
        lasting = [owners[i] for i in members]
        own = keys.of(lasting)
        behind, real, steps = right_padded([rests[i][:-1] for i in members], base.pad, base.device)
        own.advance(real)
        positions = read.position[lasting] + 1 + steps
        asked = [variants[i] for i in lasting]
        hidden = forward.hidden(behind, own.mask, positions, own.cache, asked)
        wanted = torch.cat([hidden[n, : len(rests[i]) - 1] for n, i in enumerate(members)])
        tail = _tokens(forward, wanted, [rests[i][1:] for i in members], greedy)
        for i, part in zip(members, tail.split([len(rests[i]) - 1 for i in members]), strict=True):
            parts[i] = torch.cat([parts[i], part])
    return _by_request(requests, torch.cat(parts))


def _greedy(requests: Sequence[LikelihoodRequest]) -> bool:
    return any(request.greedy for request in requests)


def _by_request(
    requests: Sequence[LikelihoodRequest], tokens: Tensor
) -> list[tuple[Likelihood, ...]]:
    """What each continuation's tokens come to. Shape: `tokens` as from `_tokens`, of all."""
    lengths = [len(c) for request in requests for c in request.continuations]
    starts = [0, *accumulate(lengths[:-1])]
    values = np.add.reduceat(tokens[:, 0].numpy(), starts).tolist()
    likeliest = np.multiply.reduceat(tokens[:, 1].numpy(), starts).tolist()
    found = zip(values, likeliest, strict=True)
    return [
        tuple(
            Likelihood(value, bool(all_) if request.greedy else None)
            for value, all_ in (next(found) for _ in request.continuations)
        )
        for request in requests
    ]


def _tokens(
    forward: Forward,
    hidden: Tensor,
    texts: Sequence[Ids],
    greedy: bool,
    at: Sequence[int] | None = None,
) -> Tensor:
    """Each token's log P, over all texts, and whether it is the likeliest (1 or 0; 0 if not asked).

    Shapes: `hidden` (n, width); `at` (m,), which of them predicts each token, one each if not
        given; returns (m, 2) in fp64, on the CPU.
    """
    device = hidden.device
    target = torch.tensor([t for text in texts for t in text], device=device, dtype=torch.long)
    found = torch.zeros(len(target), 2, device=device, dtype=torch.float64)
    places = range(len(target)) if at is None else at
    place = torch.tensor(places, device=device, dtype=torch.long)
    done = 0
    for logits in forward.logits(hidden):
        here = place - done
        which = ((here >= 0) & (here < len(logits))).nonzero()[:, 0]
        row, token = here[which], target[which]
        found[which, 0] = (logits[row, token] - logits.logsumexp(-1)[row]).double()
        if greedy:
            found[which, 1] = (logits.argmax(-1)[row] == token).double()
        done += len(logits)
    return found.cpu()
