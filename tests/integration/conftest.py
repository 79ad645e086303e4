"""What several of these tests begin with: the example's repository, and a GitHub beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import example
from tests.github_server import GitHubServer


@pytest.fixture
def github() -> Iterator[GitHubServer]:
    """A GitHub with a token, which was sent nothing that it does not describe."""
    with GitHubServer() as server:
        server.add_token("t0ken")
        yield server
        assert server.violations == []


@pytest.fixture
def server(github: GitHubServer) -> GitHubServer:
    """It knows the example's pull request."""
    github.add_pull(example.REPOSITORY, example.NUMBER)
    return github


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as a repository, with a good retraining checked out."""
    return example.build(tmp_path_factory.mktemp("built") / "repository", "clean")


@pytest.fixture
def repository(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working directory."""
    place = example.copy(built, tmp_path / "repository")
    monkeypatch.chdir(place)
    return place
