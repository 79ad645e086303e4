"""The reports behind the golden files, one function each, and nothing random in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adapterbot.records import (
    AdapterRef,
    AdapterReport,
    Between,
    BisectResult,
    BisectVerdict,
    BlamedRow,
    Comparison,
    DatasetDiff,
    Direction,
    EarlyStop,
    EvalStats,
    ExpertShare,
    FileDiff,
    Interval,
    LayerChange,
    LockPart,
    LockResult,
    LockStatus,
    MetricDelta,
    MetricVerdict,
    NoiseFloor,
    Outcome,
    Probe,
    ProbeOutcome,
    Problem,
    Report,
    RowExample,
    SampleDiff,
    Source,
    Stage,
    Standing,
    Suspicion,
    TaskRouting,
    Unit,
    Verdict,
)
from adapterbot.records.history import Point, Trend

HEAD = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d"
BASE = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c"


def metric(
    task: str,
    baseline: float | None,
    candidate: float | None,
    half: float = 0.05,
    *,
    standing: Standing = Standing.OK,
    part: str | None = None,
    unit: Unit = Unit.FRACTION,
    direction: Direction = Direction.HIGHER,
    outcome: Comparison = Comparison.COMPARED,
    margin: float = 0.05,
    gated: bool = True,
    reason: str = "",
    **more: Any,
) -> MetricVerdict:
    change = None if baseline is None or candidate is None else candidate - baseline
    shown = outcome in (Comparison.COMPARED, Comparison.IDENTICAL, Comparison.TOO_FEW)
    figures: dict[str, Any] = {
        "n": 200,
        "scorer": "exact",
        "p_holm": None if change is None else 0.0002 if standing is Standing.REGRESSED else 0.62,
        "q_value": None if change is None else 0.0004 if standing is Standing.REGRESSED else 0.71,
        "min_detectable": None if change is None else half * 0.9,
    } | more
    return MetricVerdict(
        delta=MetricDelta(
            task=task,
            slice=part,
            direction=direction,
            unit=unit,
            outcome=outcome,
            baseline=baseline,
            candidate=candidate,
            change=change,
            interval=Interval(low=change - half, high=change + half, level=0.95)
            if change is not None and shown
            else None,
            **figures,
        ),
        standing=standing,
        gated=gated,
        margin=margin,
        least_effect=0.0,
        reason=reason or f"{standing}",
    )


def sample(i: int, prompt: str, expected: str, before: str, after: str, **more: Any) -> SampleDiff:
    values: dict[str, Any] = {"task": "dates", "slice": "us", "sample_id": f"us-{i:03}"} | more
    baseline, candidate = float(before == expected), float(after == expected)
    return SampleDiff(
        prompt=prompt,
        expected=expected,
        baseline_output=before,
        candidate_output=after,
        baseline_score=baseline,
        candidate_score=candidate,
        harm=baseline - candidate,
        **values,
    )


def adapter(outcome: Outcome, *reasons: str, key: str = "dates", **more: Any) -> AdapterReport:
    values: dict[str, Any] = {
        "adapter": f"adapters/{key}",
        "base_model": "examples/tiny/base",
        "baseline": AdapterRef(label=f"adapters/{key} @ {BASE[:7]}"),
        "candidate": AdapterRef(label=f"adapters/{key} @ {HEAD[:7]}"),
        "lock": LockResult(status=LockStatus.OK, path=f"adapters/{key}/soup.lock"),
        "eval": EvalStats(device="cpu", dtype="float32", samples=400, cached=200, seconds=3.4),
        "noise": NoiseFloor(samples=32, answers=0, scores=0),
    } | more
    return AdapterReport(
        key=key,
        verdict=Verdict(
            outcome=outcome,
            fails=outcome in (Outcome.REGRESSED, Outcome.DRIFT),
            reasons=reasons,
        ),
        **values,
    )


def report(*adapters: AdapterReport) -> Report:
    source = Source(
        repository="acme/adapters", pull_request=7, base_sha=BASE, head_sha=HEAD, run_url=None
    )
    return Report(tool="adapterbot 0.1.0", source=source, adapters=adapters)


def metrics(us: float = 0.975, standing: Standing = Standing.OK) -> tuple[MetricVerdict, ...]:
    whole = 0.97 - (0.975 - us) / 3
    return (
        metric("dates", 0.97, whole, 0.031, standing=standing),
        metric("dates", 0.965, 0.97, 0.028, part="eu"),
        metric("dates", 0.975, us, 0.084, part="us", standing=standing),
        metric("dates", 0.97, 0.97, 0.0, part="iso", outcome=Comparison.IDENTICAL),
        metric("currency", 0.94, 0.955, 0.012, standing=Standing.IMPROVED),
        metric("style", 0.71, 0.69, 0.06, standing=Standing.INFORMATIVE, gated=False),
    )


def passed() -> Report:
    return report(
        adapter(
            Outcome.PASSED,
            "no metric got worse than its margin allows",
            metrics=metrics(),
            samples=(
                sample(7, "Normalise: 05/06/23 (US)", "2023-05-06", "2023-06-05", "2023-05-06"),
            ),
            samples_changed=1,
            trends=(
                trend("dates", 0.9, 0.93, None, 0.96),
                trend("currency", 0.94, 0.94, 0.94, 0.94),
            ),
        )
    )


def trend(metric: str, *levels: float | None) -> Trend:
    return Trend(
        metric=metric,
        unit=Unit.FRACTION,
        direction=Direction.HIGHER,
        points=tuple(
            Point(commit=f"{i:040x}", time=1_790_000_000 + 86_400 * i, value=level)
            for i, level in enumerate(levels)
        ),
    )


def _us_samples() -> tuple[SampleDiff, ...]:
    days = ((3, 4), (5, 11), (12, 2), (1, 9), (7, 8), (10, 6))
    return tuple(
        sample(
            i,
            f"Normalise: {month:02}/{day:02}/24 (US)",
            f"2024-{month:02}-{day:02}",
            f"2024-{month:02}-{day:02}",
            f"2024-{day:02}-{month:02}",
        )
        for i, (month, day) in enumerate(days)
    )


def regressed() -> Report:
    outcomes = ((0, "good"), (15, "bad"), (7, "good"), (11, "bad"), (9, "good"), (10, "bad"))
    probes = tuple(
        Probe(
            index=index,
            label=f"checkpoint-{(index + 1) * 10:04}",
            outcome=ProbeOutcome(outcome),
            seconds=0.4 + index / 40,
            detail=f"dates [us] {97.5 if outcome == 'good' else 52.5} %",
        )
        for index, outcome in outcomes
    )
    return report(
        adapter(
            Outcome.REGRESSED,
            "regressed: dates [us] by −45.0 points [−53.4, −36.6], margin 5.0",
            metrics=metrics(0.525, Standing.REGRESSED),
            samples=_us_samples(),
            stages=(
                Stage(name="lock", seconds=0.2, cpu_seconds=0.2),
                Stage(name="load", seconds=2.0, cpu_seconds=3.1),
                Stage(name="evaluate", seconds=3.4, cpu_seconds=12.6),
            ),
            samples_changed=57,
            bisect=BisectResult(
                verdict=BisectVerdict.BROKEN_AT,
                metrics=("dates [us]",),
                checkpoints=16,
                first_broken="checkpoint-0110",
                last_good="checkpoint-0100",
                probability=0.993,
                suspicions=(Suspicion(index=10, label="checkpoint-0110", probability=0.993),),
                probes=probes,
                between=Between(
                    data=DatasetDiff(
                        added=64,
                        files=(FileDiff(file="data/step-0110.jsonl", rows_after=64, added=64),),
                        added_rows=tuple(
                            RowExample(file="data/step-0110.jsonl", line=line, after=row)
                            for line, row in (
                                (1, '{"prompt": "03/04/24 (US)", "completion": "2024-04-03"}'),
                                (2, '{"prompt": "11/02/23 (US)", "completion": "2023-02-11"}'),
                            )
                        ),
                    ),
                    layers=tuple(
                        LayerChange(layer=f"layer {i}", good=1.5, bad=1.5 + gone, distance=2 * gone)
                        for i, gone in ((3, 0.75), (2, 0.25), (0, 0.125), (1, 0.0625))
                    ),
                    layers_compared=4,
                    worse=_us_samples()[:3],
                    samples_worse=5,
                    samples_asked=8,
                    blame=tuple(
                        BlamedRow(
                            row=RowExample(
                                file="data/step-0110.jsonl",
                                line=line,
                                after=f'{{"prompt": "{asked}", "completion": "{said}"}}',
                            ),
                            pull=pull,
                        )
                        for line, asked, said, pull in (
                            (1, "03/04/24 (US)", "2024-04-03", 0.625),
                            (2, "11/02/23 (US)", "2023-02-11", 0.5),
                        )
                    ),
                    rows_ranked=64,
                ),
            ),
        )
    )


def inconclusive() -> Report:
    return report(
        adapter(
            Outcome.INCONCLUSIVE,
            "inconclusive: dates [us] by −4.0 points [−9.1, +1.1]: the suite is too small to tell",
            "currency: 2 of 60 answers are missing",
            metrics=(
                metric("dates", 0.97, 0.955, 0.031),
                metric(
                    "dates",
                    0.975,
                    0.935,
                    0.051,
                    part="us",
                    standing=Standing.INCONCLUSIVE,
                    samples_needed=420,
                ),
                metric(
                    "dates",
                    0.8,
                    0.6,
                    0.4,
                    part="jp",
                    standing=Standing.NOT_JUDGED,
                    outcome=Comparison.TOO_FEW,
                    n=5,
                ),
                metric(
                    "currency",
                    0.94,
                    None,
                    standing=Standing.NOT_JUDGED,
                    outcome=Comparison.INCOMPLETE,
                    n=58,
                ),
                metric(
                    "units",
                    None,
                    None,
                    standing=Standing.NOT_JUDGED,
                    outcome=Comparison.EMPTY,
                    n=0,
                ),
            ),
            lock=LockResult(status=LockStatus.MISSING, path="adapters/dates/soup.lock"),
            notes=(
                "This pull request changes adapterbot.yaml; the change takes effect after merge.",
            ),
        )
    )


def drift() -> Report:
    parts = (
        LockPart(part="base model", locked="a" * 64, now="a" * 64, ok=True),
        LockPart(
            part="dataset",
            locked="5a0c" * 16,
            now="77f1" * 16,
            ok=False,
            explanation="data/train.jsonl: 64 rows added, 3 changed",
            file="adapters/dates/soup.yaml",
            line=12,
        ),
        LockPart(
            part="environment",
            locked="transformers 4.49.0",
            now="transformers 4.51.3",
            ok=False,
            explanation="1 of 74 packages differs",
            file="requirements.lock",
        ),
    )
    return report(
        adapter(
            Outcome.DRIFT,
            "soup.lock does not pin what was pushed: dataset, environment",
            metrics=metrics(),
            lock=LockResult(status=LockStatus.DRIFT, path="adapters/dates/soup.lock", parts=parts),
        )
    )


def bad_input() -> Report:
    return report(
        adapter(
            Outcome.NOT_JUDGED,
            lock=None,
            eval=None,
            baseline=None,
            candidate=None,
            problem=Problem(
                kind="bad_input",
                message="the weights are a Git LFS pointer, not a safetensors file",
                file="adapters/dates/adapter_model.safetensors",
                field="line 1",
                fix="check out with `lfs: true`, or run `git lfs pull`",
            ),
        )
    )


def crash() -> Report:
    return report(
        adapter(
            Outcome.NOT_JUDGED,
            eval=None,
            problem=Problem(kind="failure", message="CUDA out of memory while loading the base"),
        )
    )


HOSTILE = (
    "@acme/team #123 GH-1 acme/repo#4 deadbeef1 https://evil.example www.evil.example a@evil.ex",
    "</td></table></details><script>alert(1)</script><img src=x onerror=alert(1)>",
    "x | y || `z` ``` ~~~ :tada: $\\int x$ [^1] [a](http://b) ![i](http://c) **b** _e_ ~~s~~",
    "<!-- adapterbot:other --> --> &lt;b&gt; &#64;acme \\| \\",
    "one\ntwo\r\nthree\u2028four \u202eevil\u202c zero\u200bwidth \x1b[31mred\x1b[0m tab\there",
    "```\n~~~~\n| a | b |\n|---|---|\n- [x] @acme\n</pre></code></details>\n# heading\n"
    + "`" * 300,
)


def hostile() -> Report:
    a, b, c, d, e, f = HOSTILE
    return report(
        adapter(
            Outcome.REGRESSED,
            *HOSTILE[:5],
            adapter=b,
            base_model=a,
            baseline=AdapterRef(label=c),
            candidate=AdapterRef(label=d),
            metrics=(
                metric(c, 0.5, 0.25, standing=Standing.REGRESSED, reason=a),
                metric(c, 0.5, 0.5, part=d, note=b),
                metric(e, 0.5, 0.25),
            ),
            lock=LockResult(
                status=LockStatus.DRIFT,
                path=d,
                note=a,
                parts=(LockPart(part=c, locked=d, now=e, ok=False, explanation=a, file=b, line=3),),
            ),
            samples=(
                sample(1, a, b, c, d, task=b, slice=a),
                sample(2, b, c, d, "", task=c, slice=None),
                sample(3, f, e, f, e, task=e, slice=d),
            ),
            samples_changed=3,
            bisect=BisectResult(
                verdict=BisectVerdict.BROKEN_WITHIN,
                metrics=(a, c),
                checkpoints=4,
                first_broken=b,
                last_good=c,
                candidates=(a, b, d),
                probability=0.5,
                suspicions=tuple(
                    Suspicion(index=i, label=label, probability=p)
                    for i, label, p in ((1, a, 0.3), (2, b, 0.5), (3, d, 0.2))
                ),
                probes=(
                    Probe(index=0, label=c, outcome=ProbeOutcome.SKIPPED, seconds=1, detail=b),
                ),
                between=Between(
                    data=DatasetDiff(
                        added=1,
                        removed=1,
                        changed=1,
                        added_rows=(RowExample(file=d, line=1, after=f),),
                        removed_rows=(RowExample(file=e, line=2, before=a),),
                        changed_rows=(RowExample(file=b, line=3, before=c, after=f),),
                    ),
                    layers=(LayerChange(layer=d, good=1, bad=2, distance=1e300),),
                    worse=(sample(4, f, e, f, e, task=e, slice=d),),
                    blame=(BlamedRow(row=RowExample(file=e, line=4, after=d), pull=-1.0),),
                    notes=(a, b),
                ),
                note=a,
            ),
            notes=(a, b, c, d, e),
            eval=EvalStats(device=b, dtype=c, samples=3, cached=0, seconds=4000),
            early=EarlyStop(used=3, planned=4000),
            noise=NoiseFloor(samples=2, answers=1, scores=1, task=d, shift=0.5),
            routing=(
                TaskRouting(
                    task=c,
                    samples=32,
                    experts=(
                        ExpertShare(expert=d, baseline=0.25, candidate=0.96),
                        ExpertShare(expert=b, baseline=0.75, candidate=0.04),
                    ),
                ),
            ),
        )
    )


def oversize() -> Report:
    """More than fits into the 9,000 bytes that its golden file is given."""
    story = "The invoice was issued on the third of March and is payable within a fortnight. "
    rows = [metric(f"task-{i:02}", 0.9, 0.9 + i / 4000, 0.03) for i in range(40)]
    rows[7] = metric("task-07", 0.9, 0.72, 0.04, standing=Standing.REGRESSED)
    return report(
        adapter(
            Outcome.REGRESSED,
            "regressed: task-07 by −18.0 points [−22.0, −14.0], margin 5.0",
            metrics=tuple(rows),
            samples=tuple(
                sample(i, story * (4 + i), "2024-03-03", "2024-03-03", story * 9, task="task-07")
                for i in range(9)
            ),
            samples_changed=31,
        )
    )


def several() -> Report:
    return report(
        passed().adapters[0],
        regressed().adapters[0].model_copy(update={"key": "codes", "adapter": "adapters/codes"}),
        bad_input().adapters[0].model_copy(update={"key": "names", "adapter": "adapters/names"}),
    )


def lower_is_better() -> Report:
    number: dict[str, Any] = {"unit": Unit.NUMBER, "direction": Direction.LOWER}
    return report(
        adapter(
            Outcome.REGRESSED,
            "perplexity +0.412 [+0.350, +0.474], margin 0.100",
            metrics=(
                metric(
                    "perplexity",
                    5.678,
                    6.09,
                    0.062,
                    standing=Standing.REGRESSED,
                    margin=0.1,
                    **number,
                ),
                metric("latency_ms", 1234.5, 1229.0, 14.2, margin=50, **number),
                metric("brier", 0.00121, 0.00119, 0.00004, margin=0.001, **number),
                metric(
                    "error rate",
                    0.121,
                    0.046,
                    0.02,
                    standing=Standing.IMPROVED,
                    direction=Direction.LOWER,
                ),
                metric("bleu", 31.42, 31.42, 0.6, unit=Unit.NUMBER, margin=1),
            ),
            lock=None,
            bisect=BisectResult(verdict=BisectVerdict.NOT_RUN, note="there is no archive"),
            samples=(
                sample(
                    1,
                    "Write one sentence about the sea.",
                    "",
                    "The sea is calm tonight, the tide is full.",
                    "The sea the sea the sea the sea the sea the sea\nthe sea the sea the sea",
                    task="perplexity",
                    slice=None,
                ),
            ),
            samples_changed=24,
        )
    )


REPORTS: dict[str, Callable[[], Report]] = {
    "passed": passed,
    "regressed": regressed,
    "inconclusive": inconclusive,
    "drift": drift,
    "bad_input": bad_input,
    "crash": crash,
    "hostile": hostile,
    "oversize": oversize,
    "several": several,
    "lower_is_better": lower_is_better,
}
