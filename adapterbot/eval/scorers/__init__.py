"""The registry of scorers: names to classes, each in a file of its own that is imported on use.

`get` is the way to a scorer. A suite writes one as a name (`exact`), as a name with options
(`{name: numeric, tolerance: 0.01}`), or in the two short forms `python:module:function` and
`command: argv …`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from importlib import import_module

from pydantic import JsonValue

from adapterbot.errors import InputError
from adapterbot.eval.scorers.base import CorpusScorer, Scorer
from adapterbot.files.yamlfile import Path, YamlFile, nearest, validate

__all__ = ["CorpusScorer", "Scorer", "get", "names", "scorer_class", "split_spec"]

# Name → module and class. Classes are found by import on use: a suite of `exact` tasks should
# not pay for the judge's HTTP client.
_SCORERS = {
    "answer": ("final_answer", "FinalAnswer"),
    "bits_per_byte": ("bits_per_byte", "BitsPerByte"),
    "bleu": ("bleu", "Bleu"),
    "chrf": ("chrf", "Chrf"),
    "command": ("command", "Command"),
    "contains": ("contains", "Contains"),
    "exact": ("exact", "Exact"),
    "json": ("json_valid", "JsonValid"),
    "json_schema": ("json_schema", "JsonSchema"),
    "judge": ("judge", "Judge"),
    "latency": ("latency", "Latency"),
    "length": ("length", "Length"),
    "multiple_choice": ("multiple_choice", "MultipleChoice"),
    "numeric": ("numeric", "Numeric"),
    "perplexity": ("perplexity", "Perplexity"),
    "python": ("python_function", "PythonFunction"),
    "refusal": ("refusal", "Refusal"),
    "regex": ("regex", "Regex"),
    "retry": ("retry", "Retry"),
    "rouge_l": ("rouge_l", "RougeL"),
    "semantic": ("semantic", "Semantic"),
    "token_overlap": ("token_overlap", "TokenOverlap"),
    "tokens_per_second": ("tokens_per_second", "TokensPerSecond"),
    "tool_call": ("tool_call", "ToolCall"),
    "tool_call_credit": ("tool_call_credit", "ToolCallCredit"),
}
# Those that come with a kind of task; no suite names them.
_OF_KINDS = {
    "lm_eval_bits": ("lm_eval", "LmEvalBits"),
    "lm_eval_choices": ("lm_eval", "LmEvalChoices"),
    "lm_eval_greedy": ("lm_eval", "LmEvalGreedy"),
    "lm_eval_likelihood": ("lm_eval", "LmEvalLikelihood"),
    "lm_eval_match": ("lm_eval", "LmEvalMatch"),
    "lm_eval_perplexity": ("lm_eval", "LmEvalPerplexity"),
    "lm_eval_rolling": ("lm_eval", "LmEvalRolling"),
    "lm_eval_text": ("lm_eval", "LmEvalText"),
    "lm_eval_weighed": ("lm_eval", "LmEvalWeighed"),
}


def names() -> tuple[str, ...]:
    """Every scorer's name that a suite may write, sorted."""
    return tuple(sorted(_SCORERS))


def scorer_class(
    name: str, *, file: str | None = None, field: str | None = "scorer"
) -> type[Scorer]:
    """The class of a scorer.

    Raises:
        InputError: there is none of this name; says which there are, and the nearest.
    """
    found = _SCORERS.get(name) or _OF_KINDS.get(name)
    if found is None:
        raise InputError(
            f"{name!r} is not a scorer{nearest(name, names())}",
            file=file,
            field=field,
            fix=f"use one of {', '.join(names())}",
        )
    module, attribute = found
    kind: type[Scorer] = getattr(import_module(f"adapterbot.eval.scorers.{module}"), attribute)
    return kind


def get(
    name: str,
    options: Mapping[str, JsonValue] | None = None,
    *,
    file: YamlFile | None = None,
    at: Path = ("scorer",),
) -> Scorer:
    """A scorer with its options, which need no repository any more (see `Scorer.resolve`).

    Args:
        name: as in `names()`.
        options: the scorer's fields; what is left out has its default.
        file: the suite they come from, so that an error names the line.
        at: where in that suite.

    Raises:
        InputError: an unknown name, an unknown option, or a value that an option cannot have.
    """
    kind = scorer_class(name, file=file.name if file else None, field=".".join(map(str, at)))
    return validate(kind, file or YamlFile(f"scorer {name!r}", None, {}), dict(options or {}), at)


def split_spec(spec: object) -> dict[str, JsonValue]:
    """A suite's `scorer` in its long form: `name` beside the options.

    Raises:
        ValueError: it is neither a name nor a mapping with one.
    """
    name = spec.get("name") if isinstance(spec, dict) else spec
    if name in _OF_KINDS:
        raise ValueError(f"{name!r} comes with a task's `kind`; write that instead")
    if isinstance(spec, str):
        name, colon, rest = spec.partition(":")
        if not colon:
            return {"name": name}
        if name == "command":
            argv: list[JsonValue] = list(shlex.split(rest))
            return {"name": "command", "argv": argv}
        if name == "python":
            module, _, function = rest.strip().rpartition(":")
            if module and function:
                return {"name": "python", "module": module, "function": function}
            raise ValueError("write it as python:module:function")
        raise ValueError(f"{spec!r} is not a scorer; only python: and command: take a colon")
    if isinstance(spec, dict) and isinstance(spec.get("name"), str):
        return dict(spec)
    raise ValueError("write the scorer's name, or {name: …} with its options")
