"""The example as a user's repository on disk, and the events that GitHub would send about it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapterbot.commands import demo
from adapterbot.commands.lock import write as write_lock

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "tiny"
REPOSITORY = "acme/adapters"
FIRST_POISONED = "checkpoint-0440"
NUMBER = 7


def git(directory: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=dev", "-c", "user.email=dev@example.invalid")
    command = ["git", *identity, "-c", "commit.gpgsign=false", "-C", str(directory), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def build(directory: Path, history: str = "poisoned") -> Path:
    """A repository with `main` and a branch that retrained the adapter, checked out."""
    directory.mkdir()
    demo.build_repository(EXAMPLE, directory, history)
    return directory


def retrain(directory: Path, history: str) -> None:
    """Another commit on the branch, with the other training run."""
    demo.retrain(EXAMPLE, directory, history)
    commit(directory, f"retrain on {history} data")


def relock(directory: Path) -> None:
    write_lock(directory / "soup.yaml", directory / "soup.lock")


def commit(directory: Path, message: str = "change") -> str:
    git(directory, "add", "-A")
    git(directory, "commit", "-q", "--allow-empty", "-m", message)
    return git(directory, "rev-parse", "HEAD")


@contextmanager
def on_main(directory: Path) -> Iterator[None]:
    """What is done inside is committed to `main`; the branch is checked out again after."""
    branch = git(directory, "branch", "--show-current")
    git(directory, "checkout", "-q", "main")
    yield
    commit(directory)
    git(directory, "checkout", "-q", branch)


def pull_request(
    directory: Path, action: str = "opened", head_repository: str = REPOSITORY
) -> dict[str, Any]:
    """The payload of a pull request from the branch that is checked out to `main`."""
    return {
        "action": action,
        "number": NUMBER,
        "repository": {"full_name": REPOSITORY},
        "pull_request": {
            "number": NUMBER,
            "head": {
                "ref": git(directory, "branch", "--show-current"),
                "sha": git(directory, "rev-parse", "HEAD"),
                "repo": {"full_name": head_repository},
            },
            "base": {
                "ref": "main",
                "sha": git(directory, "rev-parse", "main"),
                "repo": {"full_name": REPOSITORY},
            },
        },
    }


def runner_environment(
    place: Path, name: str, payload: dict[str, Any], api_url: str
) -> dict[str, str]:
    """The variables of a job on a self-hosted runner."""
    place.mkdir(parents=True, exist_ok=True)
    event = place / "event.json"
    event.write_text(json.dumps(payload))
    for file in ("output", "summary"):
        (place / file).write_text("")
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_API_URL": api_url,
        "GITHUB_EVENT_NAME": name,
        "GITHUB_EVENT_PATH": str(event),
        "GITHUB_OUTPUT": str(place / "output"),
        "GITHUB_REPOSITORY": REPOSITORY,
        "GITHUB_STEP_SUMMARY": str(place / "summary"),
        "GITHUB_TOKEN": "t0ken",
        "RUNNER_ENVIRONMENT": "self-hosted",
        "RUNNER_TEMP": str(place / "temp"),
    }


def copy(repository: Path, to: Path) -> Path:
    shutil.copytree(repository, to, symlinks=True)
    return to
