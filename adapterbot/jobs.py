"""The jobs of a checkout's workflows that run our action, read leniently: what GitHub does not take
for a workflow, it says so itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

FOLDER = ".github/workflows"
_ACTION = "/adapter-action"
_GATE = f"{_ACTION}/{FOLDER}/adapter-gate.yml"


@dataclass(frozen=True)
class Job:
    """One of them.

    Attributes:
        workflow: its file's name, in `FOLDER`.
        name: of the job.
        group: of runners that it asks for.
        labels: that its runner must have.
        gates: whether it judges pull requests.
    """

    workflow: str
    name: str
    group: str | None
    labels: tuple[str, ...]
    gates: bool


def jobs(root: Path) -> Iterator[Job]:
    """Every job that runs our action, by file and job."""
    for path in sorted((root / FOLDER).glob("*.y*ml")):
        try:
            document = yaml.safe_load(path.read_bytes())
            listed = document["jobs"].items()
        except (
            OSError,
            yaml.YAMLError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            RecursionError,
        ):
            continue
        # YAML 1.1 reads `on:` as true.
        events = document.get("on", document.get(True))
        events = [events] if isinstance(events, str) else events
        judges = isinstance(events, list | dict) and "pull_request" in events
        for name, job in listed:
            commands = _commands(job)
            if commands:
                group, labels = _runner(job.get("runs-on"))
                yield Job(path.name, str(name), group, labels, judges and "gate" in commands)


def _commands(job: object) -> set[str]:
    """What a job has our action do, itself or by the workflow of ours that it calls."""
    if not isinstance(job, dict):
        return set()
    if _uses(job).endswith(_GATE):
        return {"gate"}
    steps = job.get("steps")
    listed = steps if isinstance(steps, list) else ()
    return {_command(step) for step in listed if _uses(step).endswith(_ACTION)}


def _uses(what: object) -> str:
    # Aliases of aliases are small until somebody writes them out.
    uses = what.get("uses") if isinstance(what, dict) else None
    return uses.partition("@")[0] if isinstance(uses, str) else ""


def _command(step: dict[str, object]) -> str:
    given = step.get("with")
    command = given.get("command", "gate") if isinstance(given, dict) else "gate"
    return command if isinstance(command, str) else ""


def _runner(asked: object) -> tuple[str | None, tuple[str, ...]]:
    """Group and labels."""
    form = asked if isinstance(asked, dict) else {"labels": asked}
    group, labels = form.get("group"), form.get("labels")
    words = [labels] if isinstance(labels, str) else labels if isinstance(labels, list) else []
    return (
        group if isinstance(group, str) else None,
        tuple(one for one in words if isinstance(one, str)),
    )
