"""Deltas and samples, from the files that people have: Soup's JSON, our report.json, our PR JSON.

What a figure is (a percentage, better when lower) is taken from the file where it says so. Soup's
files do not, so there a metric's name tells, and only by words that leave no doubt.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from adapterbot.config import key_of
from adapterbot.errors import InputError
from adapterbot.files.validation import bad_input, first_problem
from adapterbot.pr.jsonfile import parse, read_text, whole
from adapterbot.records import (
    AdapterReport,
    Direction,
    EvalDelta,
    MetricDelta,
    MetricVerdict,
    Report,
    SampleChange,
    SampleDiff,
    Standing,
    Unit,
)
from adapterbot.records.pulls import MAX_DELTAS, MAX_SAMPLE_TEXT, MAX_SAMPLES

Row = TypeVar("Row")
Raw = Mapping[str, object]

_PERCENT = re.compile(r"\s*([-+−]?[0-9]+(?:\.[0-9]+)?)\s*%\s*")
_WORDS = re.compile(r"[a-z0-9]+")
_FRACTIONS = frozenset(
    {"rate", "share", "accuracy", "acc", "precision", "recall", "percent", "pct"}
)
_LOWER = frozenset(
    {
        "error", "errors", "loss", "perplexity", "ppl", "latency", "retry", "retries", "toxicity",
        "hallucination", "hallucinations", "failure", "failures", "wer", "cer", "ter", "brier",
    }
)  # fmt: skip
_HIGHER = frozenset(
    {"score", "accuracy", "acc", "precision", "recall", "f1", "bleu", "rouge", "chrf", "reward"}
)
_SOUP_DELTA = '{"metric": …, "baseline": …, "candidate": …}'
_SOUP_SAMPLE = '{"prompt": …, "baseline_output": …, "candidate_output": …}'


def read_deltas(
    path: Path, adapter: str, digest: str | None = None
) -> tuple[tuple[EvalDelta, ...], tuple[str, ...]]:
    """The deltas in a file, and what there is to note about them.

    Args:
        path: a list of Soup's rows, a report.json, or an object with `deltas`.
        adapter: which section of a report is meant: an adapter's path.
        digest: of the weights that a report must be about; None takes any.

    Raises:
        InputError: the file, the field, and what to write there.
    """
    found = _contents(path, adapter, digest, "deltas", "metrics")
    if isinstance(found, AdapterReport):
        return _of_report(found)
    return _rows(path, found, "deltas", MAX_DELTAS, _SOUP_DELTA, _delta), ()


def read_samples(path: Path, adapter: str, digest: str | None = None) -> tuple[SampleChange, ...]:
    """The samples in a file: a list of Soup's rows, a report.json, or an object with `samples`;
    otherwise as `read_deltas`.

    Raises:
        InputError: the file, the field, and what to write there.
    """
    found = _contents(path, adapter, digest, "samples")
    if isinstance(found, AdapterReport):
        return tuple(_change(sample) for sample in found.samples[:MAX_SAMPLES])
    return _rows(path, found, "samples", MAX_SAMPLES, _SOUP_SAMPLE, _sample)


# ---------------------------------------------------------------- which kind of file


def _contents(path: Path, adapter: str, digest: str | None, *names: str) -> object:
    content = parse(read_text(path), str(path))
    if isinstance(content, dict):
        if "adapters" in content:
            section = _section(content, path, adapter)
            about_these(section, digest, file=path)
            return section
        for name in names:
            if name in content:
                return content[name]
        raise InputError(
            f"holds no {' or '.join(f'`{name}`' for name in names)}",
            file=str(path),
            fix="pass Soup's list, or the report.json of `adapterbot gate`",
        )
    return content


def _section(content: Raw, path: Path, adapter: str) -> AdapterReport:
    """The adapter's own section; the only one there is, where there is only one."""
    try:
        report = Report.model_validate(content)
    except ValidationError as error:
        raise bad_input(
            error, file=str(path), fix="pass the report.json that `adapterbot gate` wrote"
        ) from error
    named = [
        s for s in report.adapters if adapter in (s.adapter, s.key) or s.key == key_of(adapter)
    ]
    if not named and len(report.adapters) == 1:
        named = list(report.adapters)
    if not named:
        there = ", ".join(section.adapter for section in report.adapters[:5]) or "none"
        raise InputError(
            f"says nothing of {adapter} (its adapters: {there})",
            file=str(path),
            field="adapters",
            fix="gate this adapter, or pass the report that is about it",
        )
    return named[0]


def about_these(
    section: AdapterReport, digest: str | None, *, file: Path, these: str = "these"
) -> None:
    """Hold what a report measured against the weights that it is shown beside.

    Args:
        digest: of those weights; None takes any.
        these: what an error calls them.

    Raises:
        InputError: it measured others.
    """
    measured = section.candidate.digest if section.candidate else None
    if digest and measured and measured != digest:
        raise InputError(
            f"is about the weights {measured[:12]}, and {these} are {digest[:12]}",
            file=str(file),
            field=section.adapter,
            fix="gate these weights, or pass the report that is about them",
        )


def _rows(
    path: Path, found: object, field: str, most: int, shape: str, read: Callable[[Raw], Row]
) -> tuple[Row, ...]:
    if not isinstance(found, list):
        raise InputError(f"must be a list of {shape}", file=str(path), fix="write a JSON list")
    if len(found) > most:
        raise InputError(
            f"holds {len(found):,}, more than the {most} that a reviewer can read",
            file=str(path),
            field=field,
            fix="keep those that matter most",
        )
    rows: list[Row] = []
    for i, raw in enumerate(found):
        try:
            if not isinstance(raw, dict):
                raise _WrongError("", f"must be {shape}")
            rows.append(read(raw))
        except _WrongError as error:
            where = f"{field}[{i}]" + (f".{error.field}" if error.field else "")
            raise InputError(error.message, file=str(path), field=where, fix=error.fix) from error
    return tuple(rows)


class _WrongError(ValueError):
    """A field that cannot be used."""

    def __init__(self, field: str, message: str, fix: str = "correct it") -> None:
        super().__init__(message)
        self.field, self.message, self.fix = field, message, fix


# ---------------------------------------------------------------- deltas


def _of_report(section: AdapterReport) -> tuple[tuple[EvalDelta, ...], tuple[str, ...]]:
    """What a report measured, the worst first when there is more than a document holds."""
    metrics: Sequence[MetricVerdict] = section.metrics
    notes: tuple[str, ...] = ()
    if len(metrics) > MAX_DELTAS:
        regressed = {id(m) for m in metrics if m.standing is Standing.REGRESSED}
        order = sorted(metrics, key=lambda m: (id(m) not in regressed, -(m.delta.harm or 0.0)))
        kept = {id(m) for m in order[:MAX_DELTAS]}
        metrics = [m for m in metrics if id(m) in kept]
        notes = (f"{len(section.metrics) - MAX_DELTAS} more metrics are in the report",)
    if section.problem:
        notes += (f"the gate could not judge this adapter: {section.problem.message}"[:2000],)
    return tuple(_of_verdict(metric) for metric in metrics), notes


def _of_verdict(metric: MetricVerdict) -> EvalDelta:
    return _of_delta(metric.delta).model_copy(update={"standing": metric.standing})


def _of_delta(delta: MetricDelta) -> EvalDelta:
    return EvalDelta(
        metric=delta.metric[:256],
        baseline=delta.baseline,
        candidate=delta.candidate,
        unit=delta.unit,
        direction=delta.direction,
        interval=delta.interval,
    )


def _delta(raw: Raw) -> EvalDelta:
    """One row: Soup's, one of ours, or one that our own commands print."""
    try:
        if isinstance(raw.get("delta"), dict):
            return _of_verdict(MetricVerdict.model_validate(raw, strict=False))
        if "task" in raw:
            return _of_delta(MetricDelta.model_validate(raw, strict=False))
        if {"interval", "standing"} & raw.keys():
            known = {name: value for name, value in raw.items() if name != "delta"}
            return EvalDelta.model_validate(known)
    except ValidationError as error:
        raise _WrongError(*first_problem(error)) from error
    return _soup_delta(raw)


def _soup_delta(raw: Raw) -> EvalDelta:
    name = _text(raw, "metric", 256)
    if not name.strip():
        raise _WrongError("metric", "is empty", "name the metric")
    (baseline, percent), (candidate, also_percent) = (
        _figure(raw, f) for f in ("baseline", "candidate")
    )
    if baseline is None and candidate is None:
        raise _WrongError("", "has neither a baseline nor a candidate", "leave the row out")
    unit = _unit(raw, name, [v for v in (baseline, candidate) if v is not None])
    if percent or also_percent:
        unit = Unit.FRACTION
    elif raw.get("unit") in ("percent", "%"):
        baseline, candidate = (None if v is None else v / 100 for v in (baseline, candidate))
    return EvalDelta(
        metric=name,
        baseline=baseline,
        candidate=candidate,
        unit=unit,
        direction=_direction(raw, name),
    )


def _figure(raw: Raw, field: str) -> tuple[float | None, bool]:
    """A figure, and whether it was written with a percent sign. None is what was not measured."""
    value = raw.get(field)
    if value is None:
        return None, False
    percent = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if percent:
        figure = float(percent[1].replace("−", "-")) / 100
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _WrongError(
            field, "is not a number", 'write a number or "12.1%"; leave out what was not measured'
        )
    else:
        figure = float(value)
    if not math.isfinite(figure):
        raise _WrongError(field, "is not a finite number", "leave out what was not measured")
    return figure, percent is not None


def _unit(raw: Raw, name: str, values: Sequence[float]) -> Unit:
    said = raw.get("unit")
    if said in ("fraction", "percent", "%"):
        return Unit.FRACTION
    if said not in (None, "number"):
        raise _WrongError("unit", "is not a unit", "write fraction, percent or number")
    words = _WORDS.findall(name.lower())
    # A rate of 3 is a rate of something else than its own whole.
    looks = bool(words) and bool(_FRACTIONS & set(words)) and all(0 <= v <= 1 for v in values)
    return Unit.FRACTION if said is None and looks else Unit.NUMBER


def _direction(raw: Raw, name: str) -> Direction | None:
    said = raw.get("direction")
    if said in ("higher", "lower"):
        return Direction(said)
    if said is not None:
        raise _WrongError("direction", "is not a direction", "write higher or lower")
    words = set(_WORDS.findall(name.lower()))
    # "toxicity_score" and "error_rate" are better when lower, whatever else they are called.
    if words & _LOWER:
        return Direction.LOWER
    return Direction.HIGHER if words & _HIGHER else None


# ---------------------------------------------------------------- samples


def _sample(raw: Raw) -> SampleChange:
    if "task" in raw:
        try:
            return _change(SampleDiff.model_validate(raw))
        except ValidationError as error:
            raise _WrongError(*first_problem(error)) from error
    prompt, baseline, candidate = (
        _text(raw, field, MAX_SAMPLE_TEXT)
        for field in ("prompt", "baseline_output", "candidate_output")
    )
    return SampleChange(prompt=prompt, baseline_output=baseline, candidate_output=candidate)


def _change(sample: SampleDiff) -> SampleChange:
    return SampleChange(
        prompt=sample.prompt,
        baseline_output=sample.baseline_output,
        candidate_output=sample.candidate_output,
    )


def _text(raw: Raw, field: str, limit: int) -> str:
    value = raw.get(field)
    if not isinstance(value, str):
        raise _WrongError(field, "is missing" if value is None else "is not text", "write it")
    if len(value) > limit:
        raise _WrongError(
            field, f"is {len(value):,} characters, more than {limit:,}", "shorten it yourself"
        )
    return whole(value)
