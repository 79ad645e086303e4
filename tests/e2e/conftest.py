"""End-to-end tests: the action as a user's repository meets it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e import act
from tests.github_server import GitHubServer


@pytest.fixture
def server() -> Iterator[GitHubServer]:
    with GitHubServer() as server:
        server.add_token(act.TOKEN)
        yield server
        assert server.violations == []


@pytest.fixture(scope="session", autouse=True)
def _action_tree() -> Iterator[None]:
    yield
    act.remove_action_tree()
