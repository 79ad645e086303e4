"""What passes between the server, its memory and the tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Token:
    """Who a token speaks for and what it may not do.

    `viewer` is what GraphQL calls the same account (without "[bot]" on some installations).
    `forbidden` holds prefixes of operation names; `read_only` forbids every write.
    """

    login: str
    viewer: str
    read_only: bool = False
    forbidden: tuple[str, ...] = ()


@dataclass(frozen=True)
class Call:
    """One request, already matched to its operation."""

    variables: Mapping[str, str]
    query: Mapping[str, str]
    body: Json
    login: str
    path: str

    @property
    def repository(self) -> str:
        return f"{self.variables['owner']}/{self.variables['repo']}"

    def number(self, name: str) -> int:
        return int(self.variables[name])


@dataclass(frozen=True)
class Reply:
    status: int
    data: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """An error reply."""

    def __init__(self, status: int, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.reply = Reply(status, {"message": message, "documentation_url": "https://x", **extra})


@dataclass
class Comment:
    """A comment on an issue or pull request, as a test wants to see it."""

    id: int
    repository: str
    number: int
    author: str
    body: str
    created_at: str
    updated_at: str
    reactions: list[str] = field(default_factory=list)


@dataclass
class Pull:
    """A pull request. `head_repository` differs from the base's for a fork; what it was is still
    in the head's label when it was deleted."""

    repository: str
    number: int
    title: str
    author: str
    head_ref: str
    head_sha: str
    head_repository: str
    base_ref: str
    base_sha: str
    files: tuple[str, ...]
    labels: list[str] = field(default_factory=list)
    locked: bool = False
    body: str = ""
    state: str = "open"
    draft: bool = False
    reviewers: list[str] = field(default_factory=list)
    teams: list[str] = field(default_factory=list)
    head_deleted: bool = False
