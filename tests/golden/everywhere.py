"""Documents in which every free string can be made hostile, one at a time or all at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adapterbot.records import (
    AdapterPullRequest,
    AdapterRef,
    AdapterWeights,
    Between,
    BisectResult,
    BisectVerdict,
    BlamedRow,
    DatasetDiff,
    Drift,
    EvalDelta,
    EvalStats,
    ExpertShare,
    FileDiff,
    LayerChange,
    LockPart,
    LockResult,
    LockStatus,
    Outcome,
    Probe,
    ProbeOutcome,
    Problem,
    Report,
    RowExample,
    SampleChange,
    Source,
    Stage,
    Standing,
    Suspicion,
    TaskRouting,
    WeightsFile,
)
from adapterbot.records.merge import Finalist, Generation, MergeInput, MergeRecord, SearchRecord
from adapterbot.records.routes import Routes, TokenRoute
from adapterbot.report import Beside
from tests.golden.reports import BASE, HEAD, adapter, metric, sample, trend

# ---------------------------------------------------------------- a report of nothing but strings


class Fields:
    """Numbered strings, so that a field can be found again."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return f"field{self.count:03}"


def diff(f: Fields, long: str) -> DatasetDiff:
    return DatasetDiff(
        added=1,
        removed=1,
        changed=2,
        files=(FileDiff(file=f(), rows_before=3, rows_after=4, changed=2), FileDiff(file=f())),
        added_rows=(RowExample(file=f(), line=1, after=f() + long),),
        removed_rows=(RowExample(file=f(), line=2, before=f()),),
        changed_rows=(RowExample(file=f(), line=3, before=f(), after=f()),),
    )


def full(variant: int) -> Report:
    f = Fields()
    verdicts = list(BisectVerdict)
    problems: tuple[Any, ...] = (
        None,
        Problem(kind="bad_input", message=f(), file=f(), field=f(), fix=f()),
        Problem(kind="failure", message=f(), file=f(), field=f(), fix=f()),
    )
    long = " and so on" * 20
    base = adapter(
        list(Outcome)[variant % 5],
        *(f() for _ in range(1 if variant == 0 else 7)),
        adapter=f(),
        base_model=f(),
        baseline=AdapterRef(label=f(), path=f()),
        candidate=AdapterRef(label=f(), path=f()),
        lock=LockResult(
            status=list(LockStatus)[variant % 3],
            path=f(),
            note=f(),
            parts=tuple(
                LockPart(part=f(), locked=f(), now=f(), ok=ok, explanation=f(), file=f(), line=line)
                for ok, line in ((False, 3), (False, None), (True, None))
            ),
        ),
        metrics=tuple(
            metric(task, 0.5, 0.4, part=part, standing=standing, reason=f(), note=f(), scorer=f())
            for task in (f() for _ in range(5 if variant % 2 else 2))
            for standing, part in ((Standing.OK, None), (Standing.REGRESSED, f()))
        ),
        samples=(
            sample(1, f(), f(), f(), f(), task=f(), slice=f(), sample_id=f()),
            sample(2, f() + long, f(), f(), f(), task=f(), slice=None, sample_id=f()),
            sample(3, f(), f(), f(), f(), task=f(), slice=f(), sample_id=f()),
        ),
        bisect=BisectResult(
            verdict=verdicts[variant % len(verdicts)],
            metrics=tuple(f() for _ in range(6)),
            checkpoints=16,
            first_broken=f(),
            last_good=f(),
            candidates=tuple(f() for _ in range(10)),
            probability=0.9,
            suspicions=tuple(Suspicion(index=i, label=f(), probability=0.25) for i in range(4)),
            probes=tuple(
                Probe(index=i, label=f(), outcome=outcome, seconds=1, detail=f())
                for i, outcome in enumerate(ProbeOutcome)
            ),
            drift=Drift(since=f(), until=f(), probability=0.99) if variant == 2 else None,
            between=Between(
                data=diff(f, long),
                layers=(LayerChange(layer=f(), good=1, bad=2, distance=3),),
                worse=(sample(4, f(), f(), f(), f(), task=f(), slice=f(), sample_id=f()),),
                blame=(BlamedRow(row=RowExample(file=f(), line=4, after=f() + long), pull=0.5),),
                notes=(f(), f()),
            ),
            note=f(),
        ),
        notes=(f(), f()),
        problem=problems[variant % 3],
        eval=EvalStats(device=f(), dtype=f(), samples=3),
        routing=tuple(
            TaskRouting(
                task=f(),
                samples=32,
                experts=tuple(
                    ExpertShare(expert=f(), baseline=before, candidate=after)
                    for before, after in ((0.9, None), (0.1, 0.25), (None, 0.75))
                ),
            )
            for _ in range(2)
        ),
        stages=(Stage(name=f(), seconds=1),),
        trends=(trend(f(), 0.5, None, 0.25),),
    )
    source = Source(repository=f(), head_sha=HEAD, run_url=f())
    return Report(tool=f(), source=source, adapters=(base,))


VARIANTS = range(6)
FULL: dict[int, dict[str, Any]] = {v: full(v).model_dump(mode="json") for v in VARIANTS}


def strings(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from strings(item, (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from strings(item, (*path, i))
    elif isinstance(value, str):
        yield path, value


FREE = {v: [path for path, text in strings(FULL[v]) if text.startswith("field")] for v in VARIANTS}


def full_pull(variant: int) -> AdapterPullRequest:
    f = Fields()
    long = " and so on" * 20
    return AdapterPullRequest(
        tool=f(),
        title=f(),
        base_sha=BASE,
        adapter=AdapterWeights(
            path=f(),
            digest="0" * 64,
            kind=f(),
            base_model=f(),
            files=tuple(WeightsFile(name=f(), size=1, sha256="1" * 64) for _ in range(2)),
        ),
        dataset_diff=(diff(f, long), f(), None)[variant % 3],
        deltas=(
            EvalDelta(metric=f(), baseline=1, candidate=2),
            EvalDelta(metric=f(), candidate=2, standing=Standing.REGRESSED),
        ),
        samples=(
            SampleChange(prompt=f(), baseline_output=f(), candidate_output=f()),
            SampleChange(prompt=f() + long, baseline_output=f(), candidate_output=f() + long),
        ),
        notes=(f(), f()),
    )


PULLS: dict[int, dict[str, Any]] = {v: full_pull(v).model_dump(mode="json") for v in range(3)}
FREE_IN_PULLS = {
    v: [path for path, text in strings(PULLS[v]) if text.startswith("field")] for v in PULLS
}


def _put(value: Any, path: tuple[Any, ...], chosen: tuple[Any, ...] | None, text: str) -> Any:
    if isinstance(value, dict):
        return {key: _put(item, (*path, key), chosen, text) for key, item in value.items()}
    if isinstance(value, list):
        return [_put(item, (*path, i), chosen, text) for i, item in enumerate(value)]
    if isinstance(value, str) and value.startswith("field") and chosen in (None, path):
        return text + value[len("field000") :]
    return value


def with_text(variant: int, chosen: tuple[Any, ...] | None, text: str) -> Report:
    """The report with `text` in one field, or in all of them."""
    return Report.model_validate(_put(FULL[variant], (), chosen, text))


def pull_with_text(variant: int, chosen: tuple[Any, ...] | None, text: str) -> AdapterPullRequest:
    """The pull request document likewise."""
    bare = _put(PULLS[variant], (), chosen, text)
    for delta in bare["deltas"]:
        del delta["delta"]  # computed
    return AdapterPullRequest.model_validate(bare)


def merge_of(text: str = "cma-es") -> MergeRecord:
    """A short search, with `text` in every free string."""
    scores = ((0.5, 0.4), (0.625, 0.5), (0.75, 0.625))
    best = 0.0
    history = []
    for number, (top, mean) in enumerate(scores):
        best = max(best, top)
        history.append(
            Generation(
                generation=number, population=8, evaluated=64, best=top, mean=mean,
                best_so_far=best, sigma=0.3,
            )
        )  # fmt: skip
    finalist = Finalist(
        name=text, weights=((0.7, 0.3),), selection=0.75, report=0.72, difference=0.05, low=-0.01,
        high=0.11,
    )  # fmt: skip
    failed = finalist.model_copy(update={"name": f"{text} 2", "failed": text})
    return MergeRecord(
        tool=text,
        strategy=text,
        inputs=(MergeInput(path=text, digest="0" * 64), MergeInput(path=text, digest="1" * 64)),
        output=text,
        search=SearchRecord(
            search=text, groups=(text,), population=8, seed=1, budget_seconds=60, seconds=12.5,
            stop="converged", converged=True, gain=0.1, gain_low=None, gain_high=None, restarts=0,
            candidates=24, evaluated=192, selection_items=64, report_items=64, suite=text,
            suite_digest="2" * 64, winner=text, best_parent=text, history=tuple(history),
            finalists=(finalist, failed),
        ),
    )  # fmt: skip


def beside(text: str = "expert") -> Beside:
    """What lies beside a report, with `text` in every free string."""
    token = TokenRoute(token=text, written=True, weights=((0.75, 0.25), (0.0, 1.0)))
    tokens = (token, token.model_copy(update={"written": False}))
    routes = Routes(experts=(text, "b"), layers=(0, 1), tokens=tokens)
    return Beside(merge=merge_of(text), routes=routes)
