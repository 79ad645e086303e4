"""What we read of each of GitHub's replies.

A proxy, or a server that only looks like GitHub's, may answer in JSON of its own. What does not
have these fields is refused where it comes in, so that nothing further on has to ask. Fields that
nobody here reads are GitHub's business.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)

from adapterbot.files.validation import first_problem


class _Read(BaseModel):
    model_config = ConfigDict(strict=True, defer_build=True)


def _on_the_host(address: str, info: ValidationInfo) -> str:
    """PyGithub, and so we, go where a reply says that the thing is, and only on the host that was
    asked: another one would be told the token."""
    host, asked = urlsplit(address).hostname, (info.context or {}).get("host")
    if host != asked:
        raise ValueError(f"is on {host}, and not on {asked}")
    return address


_Address = Annotated[str, AfterValidator(_on_the_host)]


class _User(_Read):
    login: str


class _Comment(_Read):
    id: int
    url: _Address
    html_url: str
    node_id: str
    body: str | None = None
    user: _User | None = None  # of an account that is gone


class _Repository(_Read):
    full_name: str


class _Head(_Read):
    ref: str
    sha: str
    repo: _Repository | None = None  # of a fork that is gone


class _Label(_Read):
    name: str


class _Team(_Read):
    slug: str


class _Pull(_Read):
    number: int
    url: str
    html_url: str
    issue_url: str
    state: str
    title: str
    body: str | None = None
    head: _Head
    base: _Head
    labels: list[_Label]
    requested_reviewers: list[_User] = []
    requested_teams: list[_Team] = []


class _Review(_Read):
    user: _User | None = None


class _File(_Read):
    filename: str
    status: str


class _Permission(_Read):
    permission: str


class _Node(_Read):
    node_id: str


class _CheckRun(_Read):
    id: int
    external_id: str | None = None


class _CheckRuns(_Read):
    check_runs: list[_CheckRun]


class _Artifact(_Read):
    id: int
    name: str
    size_in_bytes: int
    expired: bool


class _Artifacts(_Read):
    artifacts: list[_Artifact]


class _Installation(_Read):
    id: int
    permissions: dict[str, str]


class _Token(_Read):
    token: str


class _Object(_Read):
    sha: str


class _Ref(_Read):
    ref: str
    url: _Address
    object: _Object


class _Commit(_Object):
    message: str
    tree: _Object


class _Entry(_Object):
    path: str
    mode: str
    type: str


class _Tree(_Object):
    tree: list[_Entry]


class _Blob(_Read):
    content: str
    size: int


class _Comparison(_Read):
    merge_base_commit: _Object


class _Error(_Read):
    message: str = ""
    type: str | None = None


class _Data(_Read):
    viewer: _User | None = None


class _Answer(_Read):
    errors: list[_Error] | None = None
    data: _Data | None = None


class _Refusal(_Read):
    message: str | None = None


_IN_A_REPOSITORY = r"/(?:repos/[^/]+/[^/]+|repositories/\d+)"
# Method, and the end of the path.
_REPLIES: tuple[tuple[str, str, Any], ...] = (
    ("POST", "/graphql", _Answer),
    ("GET", _IN_A_REPOSITORY, _Node),
    ("GET", rf"{_IN_A_REPOSITORY}/issues/\d+/comments", list[_Comment]),
    ("POST", rf"{_IN_A_REPOSITORY}/issues/\d+/comments", _Comment),
    ("PATCH", rf"{_IN_A_REPOSITORY}/issues/comments/\d+", _Comment),
    ("GET", rf"{_IN_A_REPOSITORY}/pulls", list[_Pull]),
    ("POST", rf"{_IN_A_REPOSITORY}/pulls", _Pull),
    ("GET|PATCH", rf"{_IN_A_REPOSITORY}/pulls/\d+", _Pull),
    ("GET", rf"{_IN_A_REPOSITORY}/pulls/\d+/reviews", list[_Review]),
    ("GET", rf"{_IN_A_REPOSITORY}/pulls/\d+/files", list[_File]),
    ("GET", rf"{_IN_A_REPOSITORY}/collaborators/[^/]+/permission", _Permission),
    ("GET", rf"{_IN_A_REPOSITORY}/commits/[^/]+/check-runs", _CheckRuns),
    ("POST", rf"{_IN_A_REPOSITORY}/check-runs", _CheckRun),
    ("GET", rf"{_IN_A_REPOSITORY}/actions/runs/\d+/artifacts", _Artifacts),
    ("GET", rf"{_IN_A_REPOSITORY}/git/ref/.+", _Ref),
    ("GET", rf"{_IN_A_REPOSITORY}/git/commits/[^/]+", _Commit),
    ("GET", rf"{_IN_A_REPOSITORY}/git/trees/[^/]+", _Tree),
    ("GET", rf"{_IN_A_REPOSITORY}/git/blobs/[^/]+", _Blob),
    ("POST", rf"{_IN_A_REPOSITORY}/git/(?:blobs|commits|trees)", _Object),
    ("GET", rf"{_IN_A_REPOSITORY}/compare/[^/]+", _Comparison),
    ("GET", rf"{_IN_A_REPOSITORY}/installation", _Installation),
    ("POST", r"/app/installations/\d+/access_tokens", _Token),
)
_COMPILED = tuple((re.compile(f"(?:{m}) .*{end}"), shape) for m, end, shape in _REPLIES)


def misfit(method: str, url: str, content: bytes) -> str | None:
    """What is not as GitHub would have it in a successful reply, such as "`0.id` is missing"; None
    if nothing is, or if it is no JSON at all."""
    asked = urlsplit(url)
    for pattern, shape in _COMPILED:
        if pattern.fullmatch(f"{method} {asked.path}"):
            return _misfit(shape, content, asked.hostname)
    return None


def is_refusal(content: bytes) -> bool:
    """Whether a reply of failure is one of GitHub's, or no JSON at all."""
    return _misfit(_Refusal, content) is None


def _misfit(shape: Any, content: bytes, host: str | None = None) -> str | None:
    try:
        _adapter(shape).validate_json(content, context={"host": host})
    except ValidationError as error:
        if error.errors(include_url=False)[0]["type"] == "json_invalid":
            return None
        field, problem = first_problem(error)
        return f"`{field}` {problem}" if field else f"it {problem}"
    return None


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)
