"""What a search found, in Soup's words: a break, a range of suspects, a slow rise, or nothing."""

from __future__ import annotations

from typing import TypedDict

from adapterbot.bisect.drift import Rise
from adapterbot.bisect.search import Search
from adapterbot.records import BisectResult, BisectVerdict, Drift, Probe, ProbeOutcome, Suspicion

MOST_SUSPICIONS = 64
# Of "none is broken": an all-clear although more was asked for. It is as likely as not beforehand.
_NEARLY_SURE = 0.9
_NO_SIGN_OF_A_BREAK = {ProbeOutcome.GOOD, ProbeOutcome.SKIPPED}


class _Probed(TypedDict):
    """What a result says of its search, whatever was found."""

    metrics: tuple[str, ...]
    checkpoints: int
    probes: tuple[Probe, ...]


class _Weighed(_Probed):
    """As well what the posterior says of every checkpoint."""

    suspicions: tuple[Suspicion, ...]
    good_probability: float


def conclude(search: Search, *, cut: bool = False) -> BisectResult:
    """What the posterior says now; `cut`: a limit ended the search."""
    n = len(search.checkpoints)
    probed: _Probed = {
        "metrics": tuple(search.metrics),
        "checkpoints": n,
        "probes": tuple(search.probes),
    }
    if search.contradicted:
        return BisectResult(
            verdict=BisectVerdict.NOT_RUN,
            note="a good checkpoint comes after a bad one: more than one change, or an eval that "
            "is not always right",
            **probed,
        )
    weights = search.posterior.distribution()
    credible = search.posterior.credible(search.setting.confidence)
    suspects = sorted((index for index in credible if index < n), key=lambda i: -weights[i])
    weighed: _Weighed = {
        **probed,
        "suspicions": tuple(
            Suspicion(index=i, label=_label(search, i), probability=float(weights[i]))
            for i in suspects[:MOST_SUSPICIONS]
        ),
        "good_probability": float(weights[n]),
    }
    best, probability = search.posterior.best()
    sure = probability >= search.setting.confidence
    if best == n and sure:
        return BisectResult(verdict=BisectVerdict.ALL_OK, probability=probability, **weighed)
    if not sure and all(probe.outcome is ProbeOutcome.SKIPPED for probe in search.probes):
        reason = next((probe.detail for probe in search.probes), "nothing was probed")
        return BisectResult(
            verdict=BisectVerdict.NOT_RUN,
            note=f"no checkpoint could be evaluated: {reason}"[:1000],
            **weighed,
        )
    slow = search.posterior.rise()
    if slow and slow.certain:
        return _drifted(search, suspects[0], slow, weighed)
    rate = None if sure else search.posterior.constant(search.setting.confidence)
    if rate is not None:
        return _constant(search, rate, weighed)
    none = float(weights[n])
    passed = all(probe.outcome in _NO_SIGN_OF_A_BREAK for probe in search.probes)
    newest = any(p.index == n - 1 and p.outcome is ProbeOutcome.GOOD for p in search.probes)
    # To name the likeliest other would be a false alarm; but a search that was cut short, or could
    # not look at the newest, may have found nothing because it looked at next to nothing.
    if none > _NEARLY_SURE or (none and passed and newest and not cut):
        asked = f"that none is broken has a probability of {none:.0%}, less than was asked for"
        return BisectResult(
            verdict=BisectVerdict.ALL_OK,
            probability=none,
            note=_doubts(search, asked, cut=cut),
            **weighed,
        )
    perhaps = f"none of them is broken with a probability of {none:.0%}" if n in credible else ""
    first, oldest = suspects[0], min(suspects)
    return BisectResult(
        verdict=BisectVerdict.BROKEN_AT if sure else BisectVerdict.BROKEN_WITHIN,
        first_broken=_label(search, first),
        last_good=_label(search, oldest - 1) if oldest > 0 else None,
        candidates=tuple(_label(search, index) for index in sorted(suspects)),
        probability=float(weights[first]),
        note=_certainty(search, first) if sure else _doubts(search, perhaps, cut=cut),
        **weighed,
    )


def _constant(search: Search, rate: float, weighed: _Weighed) -> BisectResult:
    """Every checkpoint fails as often as any other."""
    note = f"every checkpoint fails in about {rate:.0%} of runs: none of them changed that"
    if rate < 0.5:
        none = weighed["good_probability"]
        return BisectResult(verdict=BisectVerdict.ALL_OK, probability=none, note=note, **weighed)
    oldest = _label(search, 0)
    return BisectResult(
        verdict=BisectVerdict.BROKEN_WITHIN,
        first_broken=oldest,
        candidates=(oldest,),
        note=f"{note}; the oldest is broken already, or the command often fails on good ones",
        **weighed,
    )


def _drifted(search: Search, first: int, slow: Rise, weighed: _Weighed) -> BisectResult:
    """It came slowly; `first` is what one break would be."""
    since, until = _label(search, slow.start), _label(search, slow.end)
    return BisectResult(
        verdict=BisectVerdict.BROKEN_WITHIN,
        first_broken=_label(search, first),
        last_good=since,
        candidates=tuple(_label(search, i) for i in range(slow.start + 1, slow.end + 1)),
        drift=Drift(since=since, until=until, probability=slow.odds / (1.0 + slow.odds)),
        note=f"it came slowly, from {since[-200:]} to {until[-200:]}: "
        "no checkpoint alone is the first broken one",
        **weighed,
    )


def _label(search: Search, index: int) -> str:
    return search.checkpoints[index].label


def _certainty(search: Search, first: int) -> str:
    """What a reader must know of a break that the posterior is sure of."""
    named = []
    for index in search.posterior.misplaced(first)[:4]:
        looks = "after it looks good" if index >= first else "before it looks bad"
        named.append(f"{_label(search, index)[-80:]} {looks}")
    if named:
        return f"{', '.join(named)}: there is more than one change, or one that came slowly"
    return "the oldest checkpoint is broken already" if first == 0 else ""


def _doubts(search: Search, perhaps: str, *, cut: bool) -> str:
    """Why the search is not as sure as it was to be; `perhaps`: what may be instead."""
    skipped = any(probe.outcome is ProbeOutcome.SKIPPED for probe in search.probes)
    reasons = {
        "ended by its limit of time or probes: a larger one, with --resume, narrows this": cut,
        "some of these checkpoints could not be evaluated": skipped,
        perhaps: bool(perhaps),
    }
    return "; ".join(reason for reason, holds in reasons.items() if holds)
