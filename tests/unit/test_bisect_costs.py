"""What probes cost, measured, moves the search to checkpoints that are here already."""

from __future__ import annotations

import numpy as np
import pytest

from adapterbot.bisect import Checkpoint, Entry, Kind, Model, Observation, Search, Setting, run
from adapterbot.bisect.costs import Costs


def test_a_checkpoint_that_was_probed_costs_what_it_took_again() -> None:
    costs = Costs()
    (before,) = costs.expected(4, 1)
    assert (before == before[0]).all()
    for index in range(3):
        costs.book(index, 0, 9.0)
    for index in (0, 1, 1, 2):
        costs.book(index, 0, 2.0)
    costs.book(2, 1, 5.0)
    found, other = costs.expected(5, 2)
    assert found.tolist() == [2.0, 2.0, 2.0, 9.0, 9.0]
    # Of the other kind too little is known: what is usual.
    assert other[3] == pytest.approx(other[0] * 1.03)
    assert other[0] == pytest.approx(3.5)


def test_what_takes_no_time_costs_something() -> None:
    costs = Costs()
    for index in (0, 1, 2, 0, 1, 2):
        costs.book(index, 0, 0.0)
    assert (costs.expected(4, 1)[0] > 0).all()


class Unmeasured(Costs):
    """As if every probe took a second."""

    def book(self, index: int, kind: int, seconds: float) -> None:
        del seconds
        super().book(index, kind, 1.0)


def searched(seed: int, costs: Costs, *, fetch: float) -> tuple[float, bool]:
    """Seconds of a search in which a probe takes one, and a new checkpoint `fetch` more."""
    n = 200
    rng = np.random.default_rng([41, seed])
    first_bad = int(rng.integers(1, n))
    now, here = 0.0, set()

    def draw(bad: bool, count: int) -> np.ndarray:
        return rng.choice(
            [1.0, 0.0, -1.0], count, p=[0.15, 0.82, 0.03] if bad else [0.03, 0.94, 0.03]
        )

    def probe(index: int, kind: int, seen: int) -> Observation:
        nonlocal now
        now += 1.0 + fetch * (index not in here)
        here.add(index)
        return Observation(draw(index >= first_bad, 8))

    kind = Kind(model=Model.PAIRED_BINARY, churn=0.06, room=200, size=8)
    setting = Setting(by="costs", kinds=(kind,), first_good=True, last_bad=True)
    search = Search([Checkpoint(path=f"{i}", label=f"{i}") for i in range(n)], setting, costs=costs)
    search.take(Entry(index=n - 1, outcome=tuple(draw(True, 200).tolist()), given=True))
    found = run(search, probe, clock=lambda: now)
    return now, found.first_broken == f"{first_bad}"


def test_where_fetching_is_dear_a_search_takes_less_time() -> None:
    measured = [searched(seed, Costs(), fetch=30.0) for seed in range(16)]
    unmeasured = [searched(seed, Unmeasured(), fetch=30.0) for seed in range(16)]
    assert np.mean([s for s, _ in measured]) < 0.9 * np.mean([s for s, _ in unmeasured])
    assert sum(right for _, right in measured) >= 13
