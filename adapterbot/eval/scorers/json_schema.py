"""The answer is JSON that fits a JSON Schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, JsonValue, PrivateAttr, WithJsonSchema, field_validator

from adapterbot.errors import InputError
from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.base import RIGHT, WRONG, Files, Scorer
from adapterbot.eval.scorers.json_text import json_of
from adapterbot.eval.scorers.patterns import PatternTimeout, matches
from adapterbot.files.strict_json import parse_json
from adapterbot.importing import extras

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

Schema = dict[str, JsonValue] | bool
_IN_A_SUITE = WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "boolean"}]}
)


class JsonSchema(Scorer):
    """1 when the answer is JSON and valid under `schema` (draft 2020-12 unless it says another).

    `json_schema` is the schema itself or, in a suite, the path of a JSON file. References stay
    inside the schema: nothing is fetched.
    """

    name: ClassVar[str] = "json_schema"

    json_schema: Annotated[Schema, _IN_A_SUITE] = Field(alias="schema")
    extract: bool = False
    _validator: Validator | None = PrivateAttr(default=None)

    @classmethod
    def resolve(cls, options: Mapping[str, JsonValue], files: Files) -> Mapping[str, JsonValue]:
        path = options.get("schema")
        if not isinstance(path, str):
            return options
        try:
            schema = parse_json(files.text(path))
        except ValueError as error:
            raise InputError(
                f"is not JSON: {error}", file=files.path(path), fix="correct the schema"
            ) from error
        return {**options, "schema": schema}

    @field_validator("json_schema")
    @classmethod
    def _is_a_schema(cls, schema: Schema) -> Schema:
        build(schema)
        return schema

    def score(self, sample: Sample, answer: Answer) -> Scored:
        from referencing.exceptions import Unresolvable

        if self._validator is None:
            self._validator = build(self.json_schema)
        try:
            value = json_of(answer.text, extract=self.extract)
        except ValueError:
            return WRONG
        try:
            return RIGHT if self._validator.is_valid(value) else WRONG
        except PatternTimeout as error:
            return Scored(None, str(error))
        except Unresolvable as error:
            raise InputError(
                f"refers to {error.ref}, which is not in it",
                field="scorer.schema",
                fix="put the definition into the schema; nothing is fetched",
            ) from error
        except RecursionError:
            return Scored(None, "the answer is nested too deeply for its schema")


def build(schema: Schema) -> Validator:
    """A validator whose `pattern` ends and whose references are local.

    Raises:
        ValueError: it is not a JSON Schema.
    """
    with extras("eval", "scoring"):
        import jsonschema
        from referencing import Registry
    known: Any = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    try:
        known.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"is not a JSON Schema: {error.message[:200]}") from error
    extend: Any = jsonschema.validators.extend
    validator: Validator = extend(known, {"pattern": _pattern})(schema, registry=Registry())
    return validator


def _pattern(_validator: Any, pattern: str, instance: object, _schema: object) -> Iterator[Any]:
    import jsonschema

    if isinstance(instance, str) and not matches(pattern, instance):
        yield jsonschema.ValidationError(f"does not match {pattern!r}")
