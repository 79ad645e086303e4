"""GitHub's own description, asked two things: which operation is this, and is it well formed?

Nothing here knows what the server does; it only judges what passes through.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from openapi_core import Config, OpenAPI
from openapi_core.datatypes import RequestParameters
from openapi_core.exceptions import OpenAPIError
from werkzeug.datastructures import Headers, ImmutableMultiDict

SLICE = Path(__file__).parent / "openapi-slice.json"


@dataclass(frozen=True)
class Operation:
    """One operation of the description and the values its path carries."""

    id: str
    pattern: str
    variables: Mapping[str, str]


@dataclass
class _Request:
    """The protocol openapi-core validates; `path_pattern` tells it what we already matched."""

    method: str
    path: str
    path_pattern: str
    parameters: RequestParameters
    body: bytes | None
    content_type: str
    host_url: str = "http://localhost"


@dataclass
class _Response:
    status_code: int
    data: bytes | None
    content_type: str
    headers: Headers = field(default_factory=Headers)


class Contract:
    """The checked-in slice of GitHub's OpenAPI description."""

    def __init__(self, description: dict[str, Any]) -> None:
        self._description = description
        # scripts/openapi_slice.py validated the document; checking it again costs a second.
        unchecked = Config(spec_validator_cls=None)  # type: ignore[arg-type]  # its own docs do so
        self._openapi = OpenAPI.from_dict(description, config=unchecked)
        self._routes = [
            (method.upper(), _matcher(pattern), pattern, operation["operationId"])
            for pattern, item in description["paths"].items()
            for method, operation in item.items()
            if method != "parameters"
        ]
        # The most concrete pattern first: /issues/comments/{id} before /issues/{n}/comments.
        self._routes.sort(key=lambda route: route[2].count("{"))

    def operation(self, method: str, path: str) -> Operation | None:
        """The operation that `method path` names, or None when the slice has none."""
        for verb, matcher, pattern, name in self._routes:
            match = matcher.fullmatch(path)
            if verb == method and match:
                return Operation(name, pattern, match.groupdict())
        return None

    def request_errors(
        self,
        operation: Operation,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> list[str]:
        """Why GitHub's description does not allow this request; empty when it does."""
        request = self._request(operation, method, target, headers, body)
        return _reasons(self._openapi.iter_request_errors(request))

    def response_errors(
        self, operation: Operation, method: str, target: str, status: int, body: bytes | None
    ) -> list[str]:
        """Why the description does not allow this reply; empty when it does."""
        described = self._description["paths"][operation.pattern][method.lower()]["responses"]
        if str(status) not in described and status >= 400:
            # GitHub describes only some of the errors that it sends: PATCH on a comment that is
            # gone answers 404 without a word of it. All of them have this shape.
            told = json.loads(body or b"null")
            return [] if isinstance(told, dict) and "message" in told else ["no error message"]
        request = self._request(operation, method, target, {}, None)
        response = _Response(status, body, "application/json" if body else "")
        return _reasons(self._openapi.iter_response_errors(request, response))

    def blank(self, schema: str) -> Any:
        """The least JSON that satisfies a named schema: every required field, nothing else."""
        return _blank(self._description["components"]["schemas"][schema], self._description)

    def _request(
        self,
        operation: Operation,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> _Request:
        path, _, query = target.partition("?")
        arguments = ImmutableMultiDict(parse_qsl(query, keep_blank_values=True))
        parameters = RequestParameters(
            query=arguments, header=Headers(list(headers.items())), path=dict(operation.variables)
        )
        # PyGithub sends "application/json" without a charset; a missing type is left empty.
        kind = next((v for k, v in headers.items() if k.lower() == "content-type"), "")
        return _Request(method.lower(), path, operation.pattern, parameters, body, kind.lower())


@lru_cache(maxsize=1)
def contract() -> Contract:
    """The contract, read once per process."""
    description = json.loads(SLICE.read_text(encoding="utf-8"))
    for name in ("pull-request", "pull-request-simple"):
        # Once a fork is deleted, the head of its pull request has no repository, which the
        # description does not say.
        head = description["components"]["schemas"][name]["properties"]["head"]["properties"]
        gone = {"type": "object", "nullable": True, "enum": [None]}
        head["repo"] = {"anyOf": [head["repo"], gone]}
    return Contract(description)


def _matcher(pattern: str) -> re.Pattern[str]:
    # A {ref} is a branch name and may hold slashes; every other variable is one segment.
    literal = re.sub(r"[.+()]", r"\\\g<0>", pattern)
    return re.compile(
        re.sub(
            r"\{(\w+)\}",
            lambda m: f"(?P<{m[1]}>{'.+' if m[1] in {'ref', 'base', 'head'} else '[^/]+'})",
            literal,
        )
    )


def _reasons(errors: Any) -> list[str]:
    reasons: list[str] = []
    for error in errors:
        causes = getattr(error.__cause__, "schema_errors", None) or ()
        detail = "; ".join(f"{list(c.absolute_path)}: {c.message[:300]}" for c in causes)
        text = detail or str(error.__cause__ or error)
        kind = type(error).__name__ if isinstance(error, OpenAPIError) else repr(error)
        reasons.append(f"{kind}: {text}")
    return reasons


def _blank(schema: dict[str, Any], document: dict[str, Any]) -> Any:
    while "$ref" in schema:
        node: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            node = node[part]
        schema = node
    choices = schema.get("anyOf") or schema.get("oneOf")
    if schema.get("nullable"):
        return None
    if choices and "properties" not in schema:
        return _blank(choices[0], document)
    if "allOf" in schema:
        merged: dict[str, Any] = {}
        for part in schema["allOf"]:
            merged |= _blank(part, document)
        return merged
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: _blank(properties[name], document) for name in schema.get("required", ())}
    if kind == "string":
        return _BLANK_STRINGS.get(schema.get("format", ""), "")
    return {"array": [], "integer": 0, "number": 0, "boolean": False}[kind]


_BLANK_STRINGS = {
    "uri": "https://github.invalid/",
    "uri-template": "https://github.invalid/{x}",
    "date-time": "2026-01-01T00:00:00Z",
    "email": "nobody@github.invalid",
}
