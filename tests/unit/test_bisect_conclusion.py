"""What a search concludes, against what its posterior and its probes say, whatever was told."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapterbot.bisect import Checkpoint, Entry, Kind, Model, Search, Setting, conclude
from adapterbot.records import BisectVerdict, ProbeOutcome

GOOD, BAD, SKIPPED = False, True, None
LABELS = [f"ckpt-{index}" for index in range(6)]


def told(outcomes, *, first_good=False, last_bad=False, confidence=0.95, labels=LABELS) -> Search:
    """A search of checkpoints by a noisy command after these outcomes, (index, outcome)."""
    setting = Setting(
        by="a command",
        kinds=(Kind(model=Model.PASS_FAIL),),
        first_good=first_good,
        last_bad=last_bad,
        confidence=confidence,
    )
    search = Search([Checkpoint(path=label, label=label) for label in labels], setting)
    for index, outcome in outcomes:
        search.take(Entry(index=index, outcome=outcome, detail="looked"))
    return search


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from([GOOD, BAD, BAD, SKIPPED])), max_size=24),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.6, 0.95]),
)
@settings(max_examples=150)
# A failure between passes is no all-clear.
@example([(5, GOOD), (0, GOOD), (2, BAD), (3, GOOD), (1, GOOD)], False, False, False, 0.95)
@example([(i, BAD) for i in range(6)] * 3, False, False, False, 0.95)  # surely since the oldest
@example([(0, GOOD), (5, BAD)] * 9 + [(2, BAD)] * 2, True, False, False, 0.95)
@example([(0, GOOD), (5, BAD)] * 9 + [(2, SKIPPED), (3, BAD)] * 9, False, True, False, 0.95)
@example([(i, j % 10 < 3) for i in range(6) for j in range(40)], False, False, False, 0.95)
@example([(i, j % 10 < 7) for i in range(6) for j in range(40)], False, False, False, 0.95)
# As surely as was asked, and nearly what a good one does.
@example([(i, j % 50 < 41) for i in range(6) for j in range(50)], False, False, False, 0.6)
@example([(5, GOOD)] * 2, False, False, True, 0.95)  # a limit ended it
@example([(5, GOOD)] * 5, False, False, True, 0.95)
@example([(5, GOOD)], False, True, False, 0.95)
@example([(0, GOOD), (5, SKIPPED)], False, False, False, 0.95)  # the newest cannot tell
@example([(0, SKIPPED), (5, SKIPPED)], False, False, False, 0.95)
@example([(0, GOOD), (4, GOOD)] * 8 + [(5, SKIPPED)], False, True, False, 0.95)
def test_a_conclusion_says_what_the_search_knows(outcomes, first_good, last_bad, cut, sure) -> None:
    search = told(outcomes, first_good=first_good, last_bad=last_bad, confidence=sure)
    found = conclude(search, cut=cut)
    *weights, none = search.posterior.distribution()
    likeliest = max(range(6), key=weights.__getitem__)
    certain = max(weights) >= sure
    said = [probe.outcome for probe in found.probes]
    assert found.good_probability == none
    assert [s.probability for s in found.suspicions] == sorted(
        (weights[s.index] for s in found.suspicions), reverse=True
    )
    if none >= sure:
        assert found.verdict is BisectVerdict.ALL_OK
    elif certain:
        assert found.verdict is BisectVerdict.BROKEN_AT
    elif all(one is ProbeOutcome.SKIPPED for one in said):
        assert found.verdict is BisectVerdict.NOT_RUN
    elif (rate := search.posterior.constant(sure)) is not None:
        assert found.verdict is (
            BisectVerdict.ALL_OK if rate < 0.5 else BisectVerdict.BROKEN_WITHIN
        )
        return
    else:
        clear = (5, ProbeOutcome.GOOD) in {(one.index, one.outcome) for one in found.probes}
        clear = clear and ProbeOutcome.BAD not in said and none > 0 and not cut
        assert found.verdict is (
            BisectVerdict.ALL_OK if clear or none > 0.9 else BisectVerdict.BROKEN_WITHIN
        )
    if found.verdict not in {BisectVerdict.BROKEN_AT, BisectVerdict.BROKEN_WITHIN}:
        assert (found.first_broken, found.last_good, found.candidates) == (None, None, ())
        return
    assert found.first_broken == LABELS[likeliest]
    assert found.probability == weights[likeliest]
    among = [LABELS.index(one) for one in found.candidates]
    assert among == sorted(among)
    assert likeliest in among
    assert sum(weights[i] for i in among) + (0 if certain else none) >= sure - 1e-9
    # The training data between it and the candidates is what a reader looks through.
    before = min(among) - 1
    assert found.last_good == (LABELS[before] if before >= 0 else None)


def test_between_two_known_ends_that_are_neighbours_nothing_is_probed() -> None:
    search = told([], first_good=True, last_bad=True, labels=LABELS[:2])
    assert search.next(1) == []
    found = conclude(search)
    assert (found.verdict, found.first_broken) == (BisectVerdict.BROKEN_AT, "ckpt-1")


def test_what_contradicts_one_change_is_named_on_its_side() -> None:
    late = told([(0, GOOD), (1, GOOD), (2, BAD), (3, BAD), (4, GOOD), (5, BAD)] * 20)
    assert "ckpt-4 after it looks good" in conclude(late).note
    early = told([(0, GOOD), (1, BAD), (2, GOOD), (3, GOOD), (4, BAD), (5, BAD)] * 20)
    assert "ckpt-1 before it looks bad" in conclude(early).note
