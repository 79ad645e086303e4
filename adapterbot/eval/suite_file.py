"""The shape of a suite's YAML, version 1: what may be written, and the JSON Schema that says so.

Only the shape. What a task means once its data is read is `suite`'s affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, WithJsonSchema, model_validator

from adapterbot.eval import scorers
from adapterbot.eval.answers import GenerationSettings
from adapterbot.records import Direction, Finite, Line, Name, Record

FilePath = Annotated[str, Field(min_length=1, max_length=1000)]
Key = Annotated[str, Field(min_length=1, max_length=200)]
NotNegative = Annotated[Finite, Field(ge=0)]


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _text_or_list(description: str) -> WithJsonSchema:
    text = {"type": "string", "minLength": 1}
    return WithJsonSchema(
        {"anyOf": [text, {"type": "array", "items": text}], "description": description}
    )


class TaskDefaults(Record):
    """What a task may say, and what `defaults` may say for all of them.

    data: JSONL, CSV or Parquet files, relative to the suite's own file.
    scorer: a name, or a name with options.
    direction: which way is better, if not the scorer's default.
    margin: the metric is ok once a harm of this size is ruled out. In the metric's unit: 0.02, the
        default, is 2 points of one that is shown in percent. Needed where it is not a fraction.
    least_effect: a mean harm smaller than this is no regression, however significant. With 0 any
        significant harm is one, within the margin or not.
    gated: whether a regression of this metric fails the gate.
    weight: how much the task counts in the weighted score.
    limit: at most this many samples, chosen by their content, so always the same ones.
    cluster: the row key whose equal values mark samples that belong together (one document).
        Without it, rows that ask the same question belong together.
    slice: the row keys to report on separately; `category` if rows have it; [] for none.
    template: a Jinja template over a row's keys that makes the prompt.
    fields: which row key holds what: {prompt: question, expected: answer}.
    """

    data: (
        Annotated[tuple[FilePath, ...], BeforeValidator(_one_or_more), _text_or_list("data files")]
        | None
    ) = None
    scorer: Annotated[dict[str, JsonValue], BeforeValidator(scorers.split_spec)] | None = None
    direction: Direction | None = None
    margin: NotNegative | None = None
    least_effect: NotNegative = 0.0
    gated: bool | None = None
    weight: Annotated[Finite, Field(gt=0)] = 1.0
    generation: GenerationSettings = GenerationSettings()
    limit: Annotated[int, Field(ge=1)] | None = None
    cluster: Key | None = None
    slice: (
        Annotated[tuple[Key, ...], BeforeValidator(_one_or_more), _text_or_list("row keys")] | None
    ) = None
    template: Annotated[str, Field(min_length=1, max_length=32_768)] | None = None
    fields: Mapping[Literal["prompt", "messages", "expected", "choices", "text", "id"], Key] = {}


# What lm-eval's task says itself, by the names that other tasks have for it.
_SAID_BY_LM_EVAL = ("data", "scorer", "generation", "template", "fields")


class TaskSpec(TaskDefaults):
    """One task: the fields of TaskDefaults, and these.

    name: the metric's name in the comment.
    kind: `lm_eval` for a task of lm-eval, which brings its own data, prompts and metric.
    path: the directory that contains all of that task, relative to the suite's own file.
    task: its name in lm-eval.
    metric: which of its metrics, if it has several.
    filter: which of its filters, if it has several.
    """

    name: Name
    kind: Literal["lm_eval"] | None = None
    path: FilePath | None = None
    task: Key | None = None
    metric: Key | None = None
    filter: Key | None = None

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        given = self.model_fields_set
        if self.kind is None:
            other = sorted(given & {"path", "task", "metric", "filter"})
            if other:
                raise ValueError(f"`{other[0]}` is for tasks with `kind: lm_eval`; add that")
            return self
        if not (self.path and self.task):
            raise ValueError("a task with `kind: lm_eval` needs its `path` and its `task`")
        for name in _SAID_BY_LM_EVAL:
            if name in given:
                raise ValueError(f"`{name}` is lm-eval's to say where `kind` is lm_eval; remove it")
        return self

    def over(self, defaults: TaskDefaults) -> Self:
        """This task, with what it leaves out taken from `defaults`."""
        inherited = {
            name: getattr(defaults, name)
            for name in defaults.model_fields_set - self.model_fields_set
        }
        own = self.generation
        inherited["generation"] = defaults.generation.model_copy(
            update={name: getattr(own, name) for name in own.model_fields_set}
        )
        return self.model_copy(update=inherited)


class SuiteSpec(Record):
    """What an adapter is judged by.

    defaults: what tasks have in common; a task's own fields override it.
    tasks: each becomes a metric of its own.
    """

    version: Literal[1]
    description: Line = ""
    defaults: TaskDefaults = TaskDefaults()
    tasks: Annotated[tuple[TaskSpec, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [task.name for task in self.tasks]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"two tasks are named {doubled[0]!r}; give each its own name")
        return self


def json_schema() -> dict[str, JsonValue]:
    """The JSON Schema (2020-12) of a suite, scorers and their options included."""
    schema = SuiteSpec.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "adapterbot evaluation suite"
    definitions = schema["$defs"]
    options: list[JsonValue] = []
    for name in scorers.names():
        kind = scorers.scorer_class(name)
        scorer = kind.model_json_schema()
        definitions.update(scorer.pop("$defs", {}))
        options_of = {
            field: shape
            for field, shape in scorer.get("properties", {}).items()
            if field not in kind.derived
        }
        scorer["properties"] = {"name": {"const": name}, **options_of}
        scorer["required"] = ["name", *scorer.get("required", [])]
        definitions[f"scorer_{name}"] = scorer
        options.append({"$ref": f"#/$defs/scorer_{name}"})
    definitions["Scorer"] = {
        "anyOf": [
            {"enum": list(scorers.names())},
            {"type": "string", "pattern": "^(python|command):"},
            *options,
        ]
    }
    for spec in ("TaskSpec", "TaskDefaults"):
        definitions[spec]["properties"]["scorer"] = {"$ref": "#/$defs/Scorer"}
    return schema
