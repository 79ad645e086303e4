"""The rule of design.md §5, metric by metric and for the adapter as a whole."""

from __future__ import annotations

import math
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from adapterbot import verdict
from adapterbot.config import MetricRule
from adapterbot.delta import compare_all
from adapterbot.errors import InputError
from adapterbot.paired import Metric, Paired, pair
from adapterbot.records import (
    Comparison,
    Direction,
    LockPart,
    LockResult,
    LockStatus,
    Outcome,
    SampleScore,
    SavedTask,
    ScoreKind,
    Standing,
    TaskResult,
    Unit,
    Verdict,
)
from adapterbot.stats.proportions import PairedProportions
from adapterbot.verdict import MetricPolicy

GATED = MetricPolicy(gated=True, margin=0.05)


def binary(worse: int, better: int, n: int = 200, task: str = "dates", part=None) -> Paired:
    before, after = np.ones(n), np.ones(n)
    after[:worse] = 0
    before[worse : worse + better] = 0
    return pair(Metric(task, Direction.HIGHER, slice=part), before, after)


def judge(*deltas: Paired, policy: MetricPolicy = GATED, **options):
    rules = {paired.delta.task: policy for paired in deltas}
    return verdict.judge(deltas, options.pop("rules", rules), **options)


# ---------------------------------------------------------------- one metric


@pytest.mark.parametrize(
    ("paired", "policy", "standing"),
    [
        (binary(90, 0), GATED, Standing.REGRESSED),
        (binary(0, 60), GATED, Standing.IMPROVED),
        (binary(2, 2), GATED, Standing.OK),
        (binary(0, 0), GATED, Standing.OK),
        (binary(12, 8), GATED, Standing.INCONCLUSIVE),
        (binary(0, 0, n=40), GATED, Standing.INCONCLUSIVE),
        (binary(90, 0), MetricPolicy(False, 0.05), Standing.INFORMATIVE),
        (binary(5, 0, n=9), GATED, Standing.NOT_JUDGED),
        (binary(0, 0, n=0), GATED, Standing.NOT_JUDGED),
        # Sure, but smaller than what matters, and within the margin.
        (binary(7, 0), MetricPolicy(True, 0.10, least_effect=0.05), Standing.OK),
        (binary(7, 0), MetricPolicy(True, 0.10), Standing.REGRESSED),
        # Sure, smaller than what matters, and perhaps beyond the margin.
        (binary(30, 8), MetricPolicy(True, 0.12, least_effect=0.12), Standing.INCONCLUSIVE),
        (binary(0, 7), MetricPolicy(True, 0.10, least_effect=0.05), Standing.OK),
        # Just as large as what matters; 2⁻⁵ is exact.
        (binary(8, 0, n=256), MetricPolicy(True, 0.10, least_effect=2**-5), Standing.REGRESSED),
        (binary(0, 8, n=256), MetricPolicy(True, 0.10, least_effect=2**-5), Standing.IMPROVED),
    ],
)
def test_a_metric_stands_where_its_bounds_and_policy_put_it(
    paired: Paired, policy: MetricPolicy, standing: Standing
) -> None:
    (found,), _ = judge(paired, policy=policy)
    assert found.standing is standing
    assert (found.gated, found.margin) == (policy.gated, policy.margin)
    assert found.least_effect == policy.least_effect


def test_q_values_are_of_two_sided_tests_whichever_way_a_metric_went() -> None:
    deltas = [binary(20, 4, task="a"), binary(3, 12, task="b"), binary(7, 7, task="c")]
    two_sided = [
        min(1.0, 2 * min(p for p in (found.delta.p_worse, found.delta.p_better) if p is not None))
        for found in deltas
    ]
    assert two_sided[2] == 1.0
    metrics, _ = judge(*deltas)
    np.testing.assert_allclose(
        [metric.delta.q_value for metric in metrics], false_discovery_control(two_sided)
    )


def test_a_missing_sample_is_not_judged_however_bad_the_rest() -> None:
    before, after = np.ones(100), np.zeros(100)
    after[0] = math.nan
    (found,), overall = judge(pair(Metric("dates", Direction.HIGHER), before, after))
    assert found.standing is Standing.NOT_JUDGED
    assert found.reason == (
        "dates was not judged: 1 of 100 samples have no score on at least one side"
    )
    assert found.delta.change == -1.0
    assert overall.outcome is Outcome.NOT_JUDGED


def test_a_metric_that_is_the_same_number_everywhere_is_undecided() -> None:
    same = np.full(50, 3.0)
    constant = pair(Metric("length", Direction.LOWER, unit=Unit.NUMBER), same, same)
    (found,), overall = judge(constant, policy=MetricPolicy(True, 2.0))
    assert found.standing is Standing.INCONCLUSIVE
    assert found.delta.samples_needed is None
    assert found.reason == "length by 0, margin 2: undecided"
    assert overall.outcome is Outcome.INCONCLUSIVE


@settings(max_examples=60)
@given(
    st.integers(0, 40), st.integers(0, 40), st.integers(80, 400),
    st.floats(0, 0.2), st.floats(0, 0.2), st.sampled_from([0.05, 0.01]),
)  # fmt: skip
def test_the_rule_in_its_own_words(worse, better, n, margin, least, alpha) -> None:
    (found,), _ = judge(
        binary(worse, better, n), policy=MetricPolicy(True, margin, least), alpha=alpha
    )
    delta = found.delta
    assert delta.harm is not None
    assert delta.harm_low is not None
    assert delta.harm_high is not None
    regressed = delta.harm_low > 0 and delta.harm >= least
    assert (found.standing is Standing.REGRESSED) == regressed
    if not regressed:
        ok = delta.harm_high < margin
        assert (found.standing in (Standing.OK, Standing.IMPROVED)) == ok
    tested = delta.p_holm is not None and delta.p_holm <= alpha
    bounded = PairedProportions(n, worse, better).bounds(alpha)[0] > 0
    assert (delta.harm_low > 0) == (tested and bounded)
    assert (delta.samples_needed is None) or found.standing is Standing.INCONCLUSIVE


@settings(max_examples=60)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(80, 300), st.floats(0.01, 0.2))
def test_more_samples_are_needed_than_there_are(worse, better, n, margin) -> None:
    (found,), _ = judge(binary(worse, better, n), policy=MetricPolicy(True, margin))
    if found.standing is Standing.INCONCLUSIVE:
        assert found.delta.samples_needed is not None
        assert found.delta.samples_needed > n


@pytest.mark.parametrize(("worse", "better"), [(9, 9), (0, 0), (3, 2)])
def test_the_samples_needed_would_settle_an_unchanged_metric(worse: int, better: int) -> None:
    (found,), _ = judge(binary(worse, better, 100), policy=MetricPolicy(True, 0.02))
    needed = found.delta.samples_needed
    assert needed is not None
    rng = np.random.default_rng(1)
    share = (worse + better) / 100
    decided = 0
    for _ in range(200):
        left, right = rng.multinomial(needed, [share / 2, share / 2, 1 - share])[:2]
        (again,), _ = judge(binary(left, right, needed), policy=MetricPolicy(True, 0.02))
        decided += again.standing is not Standing.INCONCLUSIVE
    assert decided / 200 > 0.7


def test_what_an_exhausted_suite_would_need_follows_what_was_seen() -> None:
    # 4,000 samples settle a margin of 2 points if nothing changed; the truth seems to be near it.
    (found,), _ = judge(binary(520, 480, 4000), policy=MetricPolicy(True, 0.02))
    assert found.standing is Standing.INCONCLUSIVE
    assert found.delta.samples_needed is not None
    assert 4000 < found.delta.samples_needed < 60_000


def test_a_margin_of_nothing_is_never_kept() -> None:
    (found,), _ = judge(binary(3, 3), policy=MetricPolicy(True, 0.0))
    assert found.standing is Standing.INCONCLUSIVE
    assert found.delta.samples_needed is None


# ---------------------------------------------------------------- many metrics


def family(*counts: tuple[int, int], n: int = 400) -> list[Paired]:
    return [binary(worse, better, n, task=f"m{i}") for i, (worse, better) in enumerate(counts)]


def test_holm_corrects_what_gates_and_leaves_the_rest() -> None:
    borderline = binary(8, 1, 400, task="m0")
    assert borderline.delta.p_worse == pytest.approx(0.011, abs=0.001)
    alone, _ = judge(borderline)
    assert alone[0].standing is Standing.REGRESSED
    assert alone[0].delta.p_holm == borderline.delta.p_worse
    together, _ = judge(borderline, *family((5, 5), (6, 4), (0, 0), (3, 3), n=400)[1:])
    assert together[0].delta.p_holm == pytest.approx(4 * (borderline.delta.p_worse or 0))
    assert together[0].standing is Standing.REGRESSED
    crowd, _ = judge(borderline, *family(*[(5, 5)] * 10)[1:])
    assert crowd[0].standing is not Standing.REGRESSED
    assert crowd[0].delta.harm_low is not None
    assert crowd[0].delta.harm_low <= 0
    rules = {f"m{i}": MetricPolicy(i == 0, 0.05) for i in range(10)}
    quiet, _ = judge(borderline, *family(*[(5, 5)] * 10)[1:], rules=rules)
    assert quiet[0].standing is Standing.REGRESSED
    assert quiet[1].delta.p_holm is None
    assert quiet[1].delta.q_value is not None


def test_an_upper_bound_is_not_corrected() -> None:
    """Passing needs every metric to be ok, so a false pass needs no correction."""
    alone, _ = judge(*family((4, 4)))
    crowd, _ = judge(*family(*[(4, 4)] * 12))
    assert alone[0].delta.harm_high == crowd[0].delta.harm_high


def test_the_smallest_detectable_drop_counts_the_metrics_beside_it() -> None:
    alone, _ = judge(*family((4, 4)))
    crowd, _ = judge(*family(*[(4, 4)] * 10))
    assert alone[0].delta.min_detectable is not None
    assert crowd[0].delta.min_detectable is not None
    assert crowd[0].delta.min_detectable == binary(4, 4, 400).detectable(0.005)
    assert crowd[0].delta.min_detectable > alone[0].delta.min_detectable


def test_metrics_that_cannot_be_judged_take_no_part_in_the_correction() -> None:
    (found, other), _ = judge(binary(8, 1, 400), binary(3, 1, 5, task="tiny"))
    assert other.standing is Standing.NOT_JUDGED
    assert found.delta.p_holm == found.delta.p_worse
    assert other.delta.p_holm is None


def test_improvements_are_corrected_too() -> None:
    gain = binary(1, 8, 400, task="m0")
    assert judge(gain)[0][0].standing is Standing.IMPROVED
    crowd, _ = judge(gain, *family(*[(5, 5)] * 10)[1:])
    assert crowd[0].standing is Standing.OK


def test_an_improvement_needs_the_bound_as_well_as_the_test() -> None:
    """Half lost a little, one gained a lot: a small p does not make a bound."""
    rng = np.random.default_rng(3)
    change = np.where(rng.random(200) < 0.97, 0.1, -2.0)
    found = pair(Metric("m", Direction.HIGHER, unit=Unit.NUMBER), np.zeros(200), change)
    assert found.effect is not None
    low, high = found.effect.bounds(0.05)
    decided = found.bounds(0.05)
    assert decided is not None
    assert decided[0] <= max(low, 0)
    assert decided[1] >= min(high, 0)


# ---------------------------------------------------------------- slices and policies


def test_a_slice_informs_until_it_is_asked_to_gate() -> None:
    whole, part = binary(2, 2), binary(40, 0, 60, part="us")
    metrics, overall = judge(whole, part)
    assert [m.standing for m in metrics] == [Standing.OK, Standing.INFORMATIVE]
    assert metrics[1].margin == GATED.margin
    assert overall.outcome is Outcome.PASSED
    rules = {"dates": GATED, "dates [us]": GATED}
    metrics, overall = judge(whole, part, rules=rules)
    assert metrics[1].standing is Standing.REGRESSED
    assert overall.outcome is Outcome.REGRESSED


def test_a_task_without_a_policy_is_refused() -> None:
    with pytest.raises(InputError, match="no policy"):
        judge(binary(1, 1), rules={})


@pytest.mark.parametrize(
    ("direction", "threshold", "standing"),
    [
        ("higher", 0.9, Standing.REGRESSED),
        ("higher", 0.4, Standing.OK),
        ("lower", 0.4, Standing.REGRESSED),
        ("lower", 0.9, Standing.OK),
    ],
)
def test_a_mean_on_the_wrong_side_of_its_threshold_is_a_finding(
    direction: str, threshold: float, standing: Standing
) -> None:
    # Soup's gates name the least score that is accepted, whatever the baseline has.
    task = TaskResult(
        task="a",
        scorer="exact",
        direction=Direction(direction),
        kind=ScoreKind.BINARY,
        samples=tuple(SampleScore(sample_id=str(i), score=float(i % 2)) for i in range(400)),
    )
    rules = {"a": MetricPolicy(gated=True, margin=0.05, threshold=threshold)}
    (metric,), overall = verdict.judge(compare_all([task], [task]), rules)
    assert metric.standing is standing
    assert overall.fails == (standing is Standing.REGRESSED)
    if overall.fails:
        assert "threshold" in metric.reason


def task(name: str, gated: bool = True) -> SavedTask:
    return SavedTask(
        name=name,
        scorer="exact",
        direction=Direction.HIGHER,
        kind=ScoreKind.BINARY,
        unit=Unit.FRACTION,
        margin=0.05,
        least_effect=0.01,
        gated=gated,
        digest="0" * 64,
    )


def test_policies_are_the_suite_s_where_no_rule_differs() -> None:
    rules = {
        "b": MetricRule(margin=0.2, gated=True),
        "a [us]": MetricRule(gated=True),
        "a [eu]": MetricRule(least_effect=0.0),
        "a": MetricRule(margin=0.1),
    }
    found = verdict.policies([task("a"), task("b", gated=False), task("c")], rules)
    assert found == {
        "a": MetricPolicy(True, 0.1, 0.01),
        "b": MetricPolicy(True, 0.2, 0.01),
        "c": MetricPolicy(True, 0.05, 0.01),
        "a [us]": MetricPolicy(True, 0.05, 0.01),
        "a [eu]": MetricPolicy(False, 0.05, 0.0),
    }


@pytest.mark.parametrize("name", ["c", "a us", "[us]", "b [us"])
def test_a_rule_for_nothing_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"policy\.metrics.*no such task.*name one of a, b"):
        verdict.policies([task("b"), task("a")], {name: MetricRule(gated=False)})


# ---------------------------------------------------------------- the adapter


def test_the_worst_standing_names_the_outcome() -> None:
    bad, gone = binary(90, 0, task="bad"), binary(0, 0, 0, task="gone")
    open_, good = binary(12, 8, task="open"), binary(1, 1, task="good")
    _, overall = judge(good, open_, gone, bad)
    assert overall.outcome is Outcome.REGRESSED
    assert overall.fails
    assert [line.split()[:2] for line in overall.reasons] == [
        ["regressed:", "bad"],
        ["gone", "was"],
        ["inconclusive:", "open"],
    ]
    assert judge(good, open_, gone)[1].outcome is Outcome.NOT_JUDGED
    assert judge(good, open_)[1].outcome is Outcome.INCONCLUSIVE
    assert judge(good)[1] == Verdict(
        outcome=Outcome.PASSED, fails=False, reasons=("1 metric is within its margin",)
    )
    assert judge(good, binary(0, 60, task="up"))[1].reasons == (
        "2 metrics are within their margins",
    )


def test_nothing_measured_is_not_a_pass() -> None:
    assert judge()[1].outcome is Outcome.NOT_JUDGED


def test_nothing_gated_passes_and_says_so() -> None:
    _, overall = judge(binary(90, 0), policy=MetricPolicy(False, 0.05))
    assert (overall.outcome, overall.reasons) == (Outcome.PASSED, ("no metric is gated",))


@pytest.mark.parametrize(
    ("paired", "fail_on", "fails"),
    [
        (binary(90, 0), ["regressed"], True),
        (binary(90, 0), [], False),
        (binary(12, 8), ["regressed"], False),
        (binary(12, 8), ["regressed", "inconclusive"], True),
        (binary(0, 0, 0), ["regressed", "inconclusive"], False),
        (binary(1, 1), ["regressed", "inconclusive"], False),
    ],
)
def test_what_fails_is_policy(paired: Paired, fail_on: list[str], fails: bool) -> None:
    assert judge(paired, fail_on=fail_on)[1].fails is fails


def test_the_order_of_metrics_changes_no_figure() -> None:
    deltas = family((8, 1), (5, 5), (30, 2), (0, 0), (1, 9))
    forward, overall = judge(*deltas)
    backward, again = judge(*deltas[::-1])
    assert list(forward) == list(backward[::-1])
    assert overall.outcome is again.outcome


# ---------------------------------------------------------------- words


def test_a_reason_says_the_change_the_margin_and_what_would_settle_it() -> None:
    (found,), _ = judge(binary(90, 0, task="date_us"))
    assert found.reason == "date_us by −45.0 points [−51.9, −38.3], margin 5.0"
    (found,), _ = judge(binary(12, 8, task="date_us"))
    assert found.reason == (
        "date_us by −2.0 points [−6.8, +2.6], margin 5.0: "
        "about 257 samples would settle it, not 200"
    )
    (found,), _ = judge(binary(3, 2), policy=MetricPolicy(False, 0.05))
    assert found.reason.startswith("dates by −0.5 points [")
    (found,), _ = judge(binary(0, 0, 0), policy=MetricPolicy(False, 0.05))
    assert found.reason == "dates no samples"


def test_a_hebrew_name_does_not_turn_the_number_behind_it_around() -> None:
    """Unicode's rule N1: what is neutral between such a name and a number is drawn as Hebrew is, so
    that −45.0 reads 45.0−, unless a letter of the other direction stands between them."""
    (found,), _ = judge(binary(90, 0, task="דיוק"))
    before = found.reason[len("דיוק") :].partition("45")[0]
    assert "L" in {unicodedata.bidirectional(letter) for letter in before}


def test_plain_numbers_have_no_points() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(5, 1, size=100)
    slower = pair(
        Metric("perplexity", Direction.LOWER, unit=Unit.NUMBER),
        before,
        before + rng.normal(0.4, 0.3, size=100),
    )
    (found,), _ = judge(slower, policy=MetricPolicy(True, 0.125))
    assert found.reason.startswith("perplexity by +0.3")
    assert found.reason.endswith("], margin 0.125")
    assert "points" not in found.reason


def test_a_single_sample_has_no_interval_to_show() -> None:
    alone = pair(Metric("m", Direction.HIGHER, unit=Unit.NUMBER), [3.0], [2.0])
    (found,), _ = judge(alone, policy=MetricPolicy(False, 0.1))
    assert found.reason == "m by −1"


# ---------------------------------------------------------------- the lock


def lock(status: LockStatus, *broken: str) -> LockResult:
    parts = [LockPart(part=name, locked="a", now="b", ok=False) for name in broken]
    parts.append(LockPart(part="env", locked="a", now="a", ok=True))
    return LockResult(status=status, path="soup.lock", parts=tuple(parts))


PASSED = Verdict(outcome=Outcome.PASSED, fails=False, reasons=("fine",))
REGRESSED = Verdict(outcome=Outcome.REGRESSED, fails=True, reasons=("worse",))
UNJUDGED = Verdict(outcome=Outcome.NOT_JUDGED, fails=False, reasons=("gone",))


@pytest.mark.parametrize("locked", [None, lock(LockStatus.OK), lock(LockStatus.MISSING)])
def test_a_lock_that_holds_or_is_not_there_changes_nothing(locked: LockResult | None) -> None:
    assert verdict.with_lock(PASSED, locked, fails=True) == PASSED


def test_drift_fails_or_warns() -> None:
    drift = lock(LockStatus.DRIFT, "dataset_sha", "env_hash")
    because = "soup.lock does not match: dataset_sha, env_hash"
    assert verdict.with_lock(PASSED, drift, fails=True) == Verdict(
        outcome=Outcome.DRIFT, fails=True, reasons=(because, "fine")
    )
    assert verdict.with_lock(PASSED, drift, fails=False) == Verdict(
        outcome=Outcome.PASSED, fails=False, reasons=("fine", because)
    )
    assert verdict.with_lock(REGRESSED, drift, fails=True).reasons == ("worse", because)
    unjudged = verdict.with_lock(UNJUDGED, drift, fails=True)
    assert (unjudged.outcome, unjudged.fails) == (Outcome.NOT_JUDGED, True)
    bare = verdict.with_lock(PASSED, lock(LockStatus.DRIFT), fails=True)
    assert bare.reasons[0] == "soup.lock has drifted"
    note = "soup.lock is not here, but 1234567 has it"
    gone = lock(LockStatus.DRIFT).model_copy(update={"note": note})
    assert verdict.with_lock(PASSED, gone, fails=True).reasons[0] == note


def test_outcomes_that_decide_nothing() -> None:
    assert set(verdict._UNDECIDED) == set(Comparison) - {
        Comparison.COMPARED,
        Comparison.IDENTICAL,
    }
