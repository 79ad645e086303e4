"""Which checkpoint broke it, as a probability: ask which to probe, tell what came out.

The change point is the first bad of n checkpoints, oldest first: 0 says that all are bad, n that
none is. What outcomes say is an `evidence` model's; nothing here knows checkpoints, processes or
clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from adapterbot.bisect.drift import Observed, Rise, rise
from adapterbot.bisect.evidence import Floats, Graded, Outcomes, Prediction
from adapterbot.bisect.pass_fail import PassFail
from adapterbot.bisect.priors import uniform
from adapterbot.bisect.seen import Seen

# An index speaks against a change if it is this much likelier on the other side of it.
_UNLIKELY = 1000.0
# Failure rates of "all are bad" and "none is" that are one rate.
_ALIKE = 0.02
# How many histories of outcomes of a batch are followed: those of seven coins.
_HISTORIES = 128


class Contradiction(ValueError):
    """Outcomes that are never wrong, and no change point that explains them all."""


class Posterior:
    """The change point of n checkpoints under what was told so far.

    Args:
        n: how many checkpoints, oldest first.
        models: what outcomes of each kind say; one kind of pass/fail outcomes by default. They are
            copied, as some learn from what they are told.
        prior: (n + 1,) weights of the change points; `uniform(n)` by default. Ends without weight
            are assumed: the first is good, the last is bad.
        room: how many outcomes of each kind one checkpoint can give. An eval that decodes greedily
            repeats itself, so asking it the same twice would count one answer double: 1 for a
            command, the number of samples in a suite.

    Raises:
        ValueError: n < 1, or a prior of another length, negative, or without mass.
    """

    def __init__(
        self,
        n: int,
        models: Outcomes | Sequence[Outcomes] | None = None,
        *,
        prior: ArrayLike | None = None,
        room: float | Sequence[float] = np.inf,
    ) -> None:
        if n < 1:
            raise ValueError("there is nothing to bisect")
        weights = np.asarray(uniform(n) if prior is None else prior, dtype=np.float64)
        if weights.shape != (n + 1,) or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
            raise ValueError(f"the prior must be {n + 1} weights that are not negative")
        kinds = list(models) if isinstance(models, Sequence) else [models or PassFail()]
        rooms = list(room) if isinstance(room, Sequence) else [room] * len(kinds)
        self.n = n
        with np.errstate(divide="ignore"):
            self._prior = np.log(weights / weights.sum())
        self._seen = [Seen(deepcopy(one), left) for one, left in zip(kinds, rooms, strict=True)]
        self._skipped: set[int] = set()
        self._weights: Floats | None = None
        self._predictions: list[Prediction] = []

    # ------------------------------------------------------------ tell

    def tell(self, index: int, outcome: Any, kind: int = 0) -> None:
        """Record an outcome, or several as an array; None says that the checkpoint cannot tell.

        Args:
            index: 0…n−1; −1 for an end that is known to be good, n for one that is known to be bad.

        Raises:
            ValueError: there is no such index, or the outcome is not of this kind.
        """
        if not -1 <= index <= self.n:
            raise ValueError(f"index {index} is outside 0…{self.n - 1}")
        if outcome is None:
            self._skipped.add(index)
        else:
            self._seen[kind].add(index, outcome)
            self._weights = None

    # ------------------------------------------------------------ what is known

    def distribution(self) -> Floats:
        """(n + 1,) probability of each change point; [n] is "none is bad".

        Raises:
            Contradiction: the model allows no mistakes, and there are some.
        """
        if self._weights is None:
            log = self._prior.copy()
            self._predictions = []
            for seen in self._seen:
                evidence, prediction = seen.weigh()
                log += evidence[seen.hypothesis_of(self.n)]
                self._predictions.append(prediction)
            top = log.max()
            if not np.isfinite(top):
                raise Contradiction("a good checkpoint comes after a bad one")
            weights = np.exp(log - top)
            self._weights = weights / weights.sum()
        return self._weights.copy()

    def best(self) -> tuple[int, float]:
        """The most likely change point and its probability."""
        weights = self.distribution()
        index = int(np.argmax(weights))
        return index, float(weights[index])

    def credible(self, mass: float = 0.95) -> list[int]:
        """The smallest set of change points that holds `mass`, in order."""
        weights = self.distribution()
        order = np.argsort(-weights, kind="stable")
        enough = int(np.searchsorted(np.cumsum(weights[order]), mass - 1e-12)) + 1
        return sorted(int(index) for index in order[:enough])

    def stuck(self, mass: float = 0.95) -> bool:
        """Whether that much lies on change points that nothing tells apart, as no index between
        them could be evaluated: to ask further is to learn of failure rates only."""
        answers = np.ones(self.n, dtype=bool)
        mute = self._skipped.difference(*(seen.counts for seen in self._seen))
        answers[[index for index in mute if 0 <= index < self.n]] = False
        apart = np.concatenate([[0], np.cumsum(answers)])
        return bool(np.bincount(apart, self.distribution()).max() >= mass)

    def constant(self, mass: float = 0.95) -> float | None:
        """The failure rate that all share, where that much lies on "all are bad" and "none is", and
        either expects the same: to ask further does not tell whether it is a good one's or a bad
        one's. None otherwise."""
        weights = self.distribution()
        ends = weights[[0, self.n]]
        if len(self._seen) > 1 or ends.sum() < mass or not ends.all():
            return None
        good, bad = self._predictions[0].looks_bad(1)
        return float(ends @ [bad[0], good[-1]]) if abs(bad[0] - good[-1]) < _ALIKE else None

    def misplaced(self, change: int) -> list[int]:
        """What speaks against there being this one change: indices that were asked and are a
        thousand times likelier on the other side of it, everything else staying where it is.

        By chance that happens to one index in a thousand at most, where the model holds.
        """
        gains = np.zeros(self.n)
        for seen in self._seen:
            inside = [(i, s) for i, s in zip(seen.at, seen.sums, strict=True) if 0 <= i < self.n]
            before, after = seen.sides(change)
            moved = [sums if index >= change else -sums for index, sums in inside]
            if moved:
                log, _ = seen.model.weigh(
                    np.stack([before, *(before + sums for sums in moved)]),
                    np.stack([after, *(after - sums for sums in moved)]),
                )
                gains[[index for index, _ in inside]] += log[1:] - log[0]
        return [int(index) for index in np.flatnonzero(gains > np.log(_UNLIKELY))]

    def rise(self) -> Rise | None:
        """The slow rise that explains best what was seen; None where nothing can tell one."""
        observed = [
            Observed(seen.model, np.array(seen.at, np.intp), np.array(seen.sums))
            for seen in self._seen
            if seen.at and isinstance(seen.model, Graded)
        ]
        return rise(self.n, observed, np.exp(self._prior)) if observed else None

    def choose_between(self, slow: Rise) -> tuple[int, int] | None:
        """The (index, kind) at which a rise and one change expect the most different outcomes."""
        apart = np.abs(slow.shares(self.n) - np.cumsum(self.distribution()[:-1]))
        gains = np.array(
            [
                apart * (self._worth(kind, None) > 0) * isinstance(seen.model, Graded)
                for kind, seen in enumerate(self._seen)
            ]
        )
        kind, index = (int(i) for i in np.unravel_index(np.argmax(gains), gains.shape))
        return (index, kind) if gains[kind, index] > 0 else None

    def asked(self, index: int, kind: int = 0) -> float:
        """How many outcomes of one kind this index gave."""
        return self._seen[kind].counts.get(index, 0)

    # ------------------------------------------------------------ ask

    def ask(self, costs: ArrayLike | None = None, *, size: float = 1) -> int | None:
        """The index to probe next: the one expected to tell most per cost; the ends come first.

        Args:
            costs: (n,) of a probe by index, each above 0; equal by default.
            size: how many outcomes a probe brings.

        Returns: None when nothing more can be learned.

        Raises:
            ValueError: the costs are not these.
            Contradiction: as `distribution`.
        """
        if costs is not None:
            given = np.asarray(costs, np.float64)
            if given.shape != (self.n,) or not (given > 0).all():
                raise ValueError(f"the costs must be {self.n} numbers above 0")
        chosen = self.choose(None if costs is None else [costs], sizes=[size])
        return chosen[0] if chosen else None

    def choose(
        self, costs: Sequence[ArrayLike] | None = None, *, sizes: Sequence[float] | None = None
    ) -> tuple[int, int] | None:
        """As `ask`, over every kind of outcome: (index, kind)."""
        batch = self.choose_batch(1, costs, sizes=sizes)
        return batch[0] if batch else None

    def choose_batch(
        self,
        count: int,
        costs: Sequence[ArrayLike] | None = None,
        *,
        sizes: Sequence[float] | None = None,
    ) -> list[tuple[int, int]]:
        """Probes to make at the same time, each chosen with those before it in mind.

        Greedy in the information that all of them bring together, over what those before it may
        say (at least 1 − 1/e of the best batch, as mutual information is submodular here).
        """
        weights = self.distribution()
        sizes = sizes or [1.0] * len(self._seen)
        ends = self._open_ends()[:count]
        if ends:
            return ends
        worth = [self._worth(kind, costs) for kind in range(len(self._seen))]
        histories = weights[None, :]
        chosen: list[tuple[int, int]] = []
        while len(chosen) < count:
            gains = np.array(
                [self._information(histories, k, sizes[k]) * w for k, w in enumerate(worth)]
            )
            kind, index = (int(i) for i in np.unravel_index(np.argmax(gains), gains.shape))
            if gains[kind, index] <= 1e-12:
                break
            index = self._middle_of_ties(gains[kind], index)
            chosen.append((index, kind))
            if self._seen[kind].room - self.asked(index, kind) <= sizes[kind] * sum(
                one == (index, kind) for one in chosen
            ):
                worth[kind][index] = 0.0
            if len(chosen) < count:
                histories = self._forked(histories, index, kind, sizes[kind])
        return chosen

    def _open_ends(self) -> list[tuple[int, int]]:
        """The ends that nothing is known of, the newest first: they tell "all good" and "all
        broken" apart from a change in between."""
        ends = [
            end
            for end, change in ((self.n - 1, self.n), (0, 0))
            if np.isfinite(self._prior[change])
        ]
        return [
            (end, 0)
            for end in dict.fromkeys(ends)
            if end not in self._skipped
            and not any(self.asked(end, kind) for kind in range(len(self._seen)))
            and self._seen[0].room > 0
        ]

    def _worth(self, kind: int, costs: Sequence[ArrayLike] | None) -> Floats:
        """(n,) chance of an answer per cost of asking; 0 where there is none to be had."""
        seen = self._seen[kind]
        worth = np.ones(self.n)
        inside = [i for i in seen.at if 0 <= i < self.n]
        if self._skipped:
            # What cannot be evaluated comes in runs, so its neighbours are doubtful too.
            skipped = np.array(sorted(self._skipped))
            distance = np.abs(np.arange(self.n)[:, None] - skipped).min(axis=1)
            worth *= 1.0 - 0.5 ** distance.astype(np.float64)
            worth[[i for i in inside if i not in self._skipped]] = 1.0
        if costs is not None:
            worth /= np.asarray(costs[kind], dtype=np.float64)
        if np.isfinite(seen.room):
            worth[[i for i in inside if seen.counts[i] >= seen.room]] = 0.0
        return worth

    def _information(self, histories: Floats, kind: int, size: float) -> Floats:
        """(n,) expected bits of a probe, over what may have happened before it."""
        at = self._seen[kind].hypothesis_of(self.n)
        prediction = self._predictions[kind]
        total = np.zeros(self.n)
        for weights in histories:
            mass = float(weights.sum())
            if mass > 1e-9:
                total += mass * prediction.information(weights / mass, at, size)
        return total

    def _forked(self, histories: Floats, index: int, kind: int, size: float) -> Floats:
        """Every history, with both outcomes of one more probe; the likeliest of them."""
        good, bad = self._predictions[kind].looks_bad(size)
        at = self._seen[kind].hypothesis_of(self.n)
        chance = np.where(np.arange(self.n + 1) <= index, bad[at], good[at])
        forked = np.concatenate([histories * chance, histories * (1.0 - chance)])
        if len(forked) <= _HISTORIES:
            return forked
        kept = forked[np.argsort(-forked.sum(axis=1), kind="stable")[:_HISTORIES]]
        return np.asarray(kept / kept.sum())

    @staticmethod
    def _middle_of_ties(gains: Floats, best: int) -> int:
        ties = np.flatnonzero(gains >= gains[best] * (1.0 - 1e-9))
        return int(ties[len(ties) // 2])
