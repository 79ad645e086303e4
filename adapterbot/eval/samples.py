"""Rows of a data file become samples: the prompt by key or template, an id, slices, clusters.

Everything that makes a row unusable is said here, with its file and line, before a model loads.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import JsonValue, ValidationError

from adapterbot.errors import InputError
from adapterbot.eval.answers import Message, Request, Sample
from adapterbot.eval.chat import render_apart
from adapterbot.eval.data import LINE_LIMIT, Row
from adapterbot.eval.scorers.base import Scorer
from adapterbot.eval.suite_file import TaskSpec
from adapterbot.files.validation import first_problem
from adapterbot.files.yamlfile import Path, nearest

if TYPE_CHECKING:
    from jinja2 import Template

NAME_LIMIT = 200
SLICE_LIMIT = 100
_ID_DIGITS = 12


def digest(value: JsonValue) -> str:
    """SHA-256 of canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def as_text(value: JsonValue) -> str:
    """Text as it is, nothing as "", everything else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Plan:
    """A task as written, the rows it is about, and where in the suite it stands.

    `margin` is what its format means by none given; `threshold` the least mean it demands.
    """

    spec: TaskSpec
    rows: tuple[Row, ...]
    at: Path = ()
    margin: float = 0.02
    threshold: float | None = None


def build_samples(
    plan: Plan, scorer: Scorer, *, file: str, field: str, until: float | None = None
) -> tuple[Sample, ...]:
    """The samples of one task, in file order, cut to the task's `limit`.

    A row without an `id` is named by its content, so that its name survives edits elsewhere in
    the file; the same content again gets `.2`, `.3`, …

    Args:
        file: the suite, and `field`: the task in it, for errors about the task as a whole.
        until: of a suite that nobody trusts, when (`time.monotonic`) its template must have ended:
            it is rendered apart.

    Raises:
        InputError: naming the row, or the task's field.
    """
    spec, rows = plan.spec, plan.rows
    render = _renderer(spec.template, file, f"{field}.template") if spec.template else None
    if render and until is not None:
        render = _rendered_apart(render, plan, file, f"{field}.template", until)
    slices = spec.slice
    if slices is None:
        slices = ("category",) if any("category" in row.values for row in rows) else ()
    contents = [digest(dict(row.values)) for row in rows]
    copies: Counter[str] = Counter()
    seen: dict[str, Row] = {}
    samples: list[Sample] = []
    for row, content in zip(rows, contents, strict=True):
        values = _named(spec, row)
        copies[content] += 1
        name = _row_id(row, values, content, copies[content])
        if name in seen:
            first = seen[name]
            raise row.error(
                f"repeats the id {name!r} of {first.file} line {first.line}",
                fix="make ids unique, or leave them out",
            )
        seen[name] = row
        samples.append(_sample(spec, row, values, name, slices, scorer.request, render))
        complaint = scorer.check(samples[-1])
        if complaint:
            raise row.error(
                f"{complaint} (scorer {scorer.name})", fix="correct the row, or use another scorer"
            )
    kept = _limited(samples, contents, spec.limit)
    if spec.cluster is None:
        kept = _together(kept, scorer.request)
    if len({sample.slice for sample in kept}) > SLICE_LIMIT:
        raise InputError(
            f"makes more than {SLICE_LIMIT} slices",
            file=file,
            field=f"{field}.slice",
            fix="choose a key with few values, or write `slice: []`",
        )
    return kept


def _limited(
    samples: Sequence[Sample], contents: Sequence[str], limit: int | None
) -> tuple[Sample, ...]:
    """The `limit` samples with the smallest digests: no function of how the file is sorted."""
    if limit is None or limit >= len(samples):
        return tuple(samples)
    chosen = sorted(range(len(samples)), key=lambda index: (contents[index], index))[:limit]
    return tuple(samples[index] for index in sorted(chosen))


def _together(samples: Sequence[Sample], request: Request) -> tuple[Sample, ...]:
    """Rows that ask one and the same question as a cluster, named by the first of them: asked five
    times, it tells no more of how other questions are answered than asked once."""
    asked = [question(sample, request) for sample in samples]
    times = Counter(asked)
    first: dict[Hashable, str] = {}
    return tuple(
        sample.model_copy(update={"cluster": first.setdefault(one, sample.id)})
        if times[one] > 1
        else sample
        for sample, one in zip(samples, asked, strict=True)
    )


def question(sample: Sample, request: Request) -> Hashable:
    """What is asked: equal for samples that ask one and the same question."""
    scored = request in (Request.LIKELIHOOD, Request.ROLLING)  # there `expected` is asked about
    expected = sample.expected if scored else ""
    return sample.prompt, sample.messages, sample.choices, expected


def _named(spec: TaskSpec, row: Row) -> Mapping[str, JsonValue]:
    values = dict(row.values)
    for name, key in spec.fields.items():
        values[name] = _value(row, key, f"fields.{name}")
    return values


def _value(row: Row, key: str, why: str) -> JsonValue:
    if key not in row.values:
        raise row.error(
            f"has no {key!r}, which the suite asks for ({why}){nearest(key, list(row.values))}",
            fix="add it to the row, or correct the suite",
        )
    return row.values[key]


def _row_id(row: Row, values: Mapping[str, JsonValue], content: str, copy: int) -> str:
    given = values.get("id")
    if given is None:
        return content[:_ID_DIGITS] + (f".{copy}" if copy > 1 else "")
    name = as_text(given)
    if isinstance(given, bool) or not isinstance(given, str | int) or not name:
        raise row.error("has an `id` that is neither text nor a whole number", fix="correct it")
    if len(name) > NAME_LIMIT:
        raise row.error(f"has an `id` of more than {NAME_LIMIT} characters", fix="shorten it")
    return name


def _sample(
    spec: TaskSpec,
    row: Row,
    values: Mapping[str, JsonValue],
    name: str,
    slices: Sequence[str],
    request: Request,
    render: Callable[[Row, Mapping[str, JsonValue]], str] | None,
) -> Sample:
    messages = None
    expected = as_text(values.get("expected"))
    if render is not None:
        prompt = render(row, values)
    elif values.get("messages") is not None:
        messages = _messages(row, values["messages"])
        prompt = _readable(messages)
    else:
        prompt = as_text(values.get("prompt"))
    if request in (Request.LIKELIHOOD, Request.ROLLING):
        if not expected and "text" in values:
            prompt, expected = "", as_text(values["text"])
        if not expected:
            raise row.error("has neither `text` nor `expected`", fix="put the text in `text`")
    elif not prompt:
        raise row.error(
            f"has no `prompt`{nearest('prompt', list(row.values))}",
            fix="add it, or name its key with `fields: {prompt: …}` or a `template`",
        )
    labels = [as_text(values.get(key)) for key in slices]
    label = " / ".join(text or "–" for text in labels) if any(labels) else None
    cluster = as_text(_value(row, spec.cluster, "cluster")) if spec.cluster else None
    for what, text in (("slice", label), ("cluster", cluster)):
        if text is not None and not 0 < len(text) <= NAME_LIMIT:
            raise row.error(
                f"has a {what} of {len(text)} characters, not 1 to {NAME_LIMIT}", fix="shorten it"
            )
    return Sample(
        id=name,
        prompt=prompt,
        messages=messages,
        expected=expected,
        choices=_choices(row, values.get("choices")),
        slice=label,
        cluster=cluster,
        fields=values,
    )


def _messages(row: Row, given: JsonValue) -> tuple[Message, ...]:
    fix = 'write [{"role": "user", "content": "…"}]'
    if not isinstance(given, list) or not given:
        raise row.error("has `messages` that are not a list of messages", fix=fix)
    try:
        return tuple(Message.model_validate(_told(item)) for item in given)
    except ValidationError as error:
        where, message = first_problem(error)
        raise row.error(
            f"has a message that is not role and content: {where} {message}", fix=fix
        ) from error


def _told(message: JsonValue) -> JsonValue:
    """Without what it leaves open: in Parquet every message has the keys of all others."""
    if not isinstance(message, dict):
        return message
    return {key: value for key, value in message.items() if value is not None}


def _readable(messages: Sequence[Message]) -> str:
    if len(messages) == 1:
        return messages[0].content
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


def _choices(row: Row, given: JsonValue) -> tuple[str, ...]:
    if given is None:
        return ()
    if not isinstance(given, list):
        raise row.error("has `choices` that are not a list", fix='write ["…", "…"]')
    return tuple(as_text(choice) for choice in given)


def _renderer(
    template: str, file: str, field: str
) -> Callable[[Row, Mapping[str, JsonValue]], str]:
    """The template as a function of a row; a name the row lacks is an error, not "", and so is one
    that is null (in Parquet that is how a row lacks it), unless a filter or `~` is given it first.

    It sees the row's keys, and the whole row as `row` for keys that are no identifiers.
    """
    from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, UndefinedError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def printed(value: object) -> object:
        if value is None:
            raise UndefinedError("it prints what is null")
        return value

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, finalize=printed
    )
    try:
        compiled: Template = environment.from_string(template)
    except TemplateSyntaxError as error:
        raise InputError(
            f"is not a Jinja template: {error.message}", file=file, field=field, fix="correct it"
        ) from error

    def render(row: Row, values: Mapping[str, JsonValue]) -> str:
        try:
            prompt = compiled.render({"row": values, **values})
        except (
            TemplateError,
            ArithmeticError,
            AttributeError,
            LookupError,
            MemoryError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            raise row.error(
                f"does not fit the suite's template ({field}): {error}",
                fix="add what the template names, or correct the template",
            ) from error
        if len(prompt) > LINE_LIMIT:
            raise row.error(
                f"makes a prompt of {len(prompt):,} characters ({field})", fix="shorten it"
            )
        return prompt

    return render


def _rendered_apart(
    render: Callable[[Row, Mapping[str, JsonValue]], str],
    plan: Plan,
    file: str,
    field: str,
    until: float,
) -> Callable[[Row, Mapping[str, JsonValue]], str]:
    """What `render` makes of the plan's rows, made in another process with limits."""
    texts, problem = render_apart(
        lambda row: render(row, _named(plan.spec, row)),
        plan.rows,
        max(1.0, until - time.monotonic()),
    )
    if problem:
        raise InputError(problem, file=file, field=field, fix="correct the template")
    made = {id(row): text for row, text in zip(plan.rows, texts, strict=True)}
    return lambda row, _: made[id(row)]
