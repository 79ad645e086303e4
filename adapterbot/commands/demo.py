"""`adapterbot demo`: a repository with a bad adapter pull request, and the very same gate on it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from adapterbot.commands import gate
from adapterbot.commands.folders import own_folder
from adapterbot.commands.lock import write as write_lock
from adapterbot.commands.report_files import Written
from adapterbot.errors import InputError, OurFailure
from adapterbot.files.atomic import not_written
from adapterbot.git.program import environment_apart, git_as, of_a_repository
from adapterbot.records import BisectVerdict, Report

ADAPTER = "adapters/dates"
BRANCH = "retrain-on-new-invoices"
_IN_BASE = (
    "adapterbot.yaml",
    "base",
    ADAPTER,
    "data/train.jsonl",
    "evals",
    "soup.yaml",
    "soup.lock",
    "soup.lock.d",
    "soup-env.lock",
)
# Whoever the user is to Git, and without their signing key.
_NOBODYS = (
    ("user.name", "adapterbot demo"),
    ("user.email", "demo@example.invalid"),
    ("commit.gpgsign", "false"),
)


def example_directory() -> Path:
    """The example that comes with adapterbot: in a wheel beside this package, else in the checkout.

    Raises:
        OurFailure: neither is there.
    """
    package = Path(__file__).resolve().parent.parent
    for place in (package / "example", package.parent / "examples" / "tiny"):
        if (place / "soup.yaml").is_file():
            return place
    raise OurFailure("the example is not installed", fix="reinstall adapterbot")


def build_repository(example: Path, directory: Path, history: str = "poisoned") -> None:
    """A Git repository with a good adapter on `main`, and a branch that retrained it.

    Args:
        history: which of the example's two training runs the branch holds, `poisoned` or `clean`.

    Raises:
        OurFailure: Git failed.
    """
    _git(directory, "init", "-q", "-b", "main")
    for name in _IN_BASE:
        _copy(example / name, directory / name)
    _commit(directory, "A good adapter")
    _git(directory, "checkout", "-q", "-b", BRANCH)
    retrain(example, directory, history)
    _commit(directory, "Retrain on the new invoices")


def retrain(example: Path, directory: Path, history: str) -> None:
    """Put a training run into the working tree: its data, checkpoints, last adapter and lock."""
    run = example / "history" / history
    checkpoints = sorted(path for path in run.iterdir() if path.is_dir())
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    _copy(run, directory / "checkpoints")
    shutil.rmtree(directory / ADAPTER)
    _copy(checkpoints[-1], directory / ADAPTER)
    (directory / ADAPTER / "trainer_state.json").unlink()
    shutil.rmtree(directory / "data" / "steps", ignore_errors=True)
    _copy(example / "data" / history, directory / "data" / "steps")
    added = sorted((directory / "data" / "steps").glob("*.jsonl"))
    (directory / "data" / "train.jsonl").write_bytes(
        b"".join(path.read_bytes() for path in (example / "data" / "train.jsonl", *added))
    )
    write_lock(directory / "soup.yaml", directory / "soup.lock")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        # Not the times: files of one size that seem as old as those they replace look unchanged
        # to Git, and it would commit nothing.
        shutil.copytree(source, target, copy_function=shutil.copyfile)
    else:
        shutil.copyfile(source, target)


def _commit(directory: Path, message: str) -> None:
    _git(directory, "add", "-A")
    _git(directory, "commit", "-q", "-m", message)


def _git(directory: Path, *arguments: str) -> None:
    git_as(directory, environment_apart(_NOBODYS), *arguments)


@contextmanager
def _inside(directory: Path) -> Iterator[None]:
    """There, and in no repository that Git's variables name."""
    before = Path.cwd()
    aside = {name: os.environ.pop(name) for name in filter(of_a_repository, [*os.environ])}
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)
        os.environ.update(aside)


def found_the_break(report: Report) -> bool:
    """Whether the gate named the checkpoint that broke it."""
    return any(
        adapter.bisect is not None and adapter.bisect.verdict is BisectVerdict.BROKEN_AT
        for adapter in report.adapters
    )


def run(directory: Path | None, say: Callable[[str], None]) -> Written:
    """Build the repository and gate its pull request.

    Args:
        directory: where to build it; a new temporary folder when None.

    Raises:
        InputError: the folder is no new one, or cannot be made.
        AdapterbotError: the gate itself could not run.
    """
    # Absolute, since the gate runs inside of it.
    place = (directory or Path(tempfile.mkdtemp(prefix="adapterbot-demo-"))).absolute()
    try:
        place.mkdir(parents=True, exist_ok=True)
        if any(place.iterdir()):
            raise InputError("is not empty", file=str(place), fix="name a new folder")
    except OSError as error:
        raise InputError(
            f"cannot be made: {error.strerror}", file=str(place), fix="name a new folder"
        ) from error
    say(f"a repository with one adapter, and a pull request that retrained it: {place}")
    try:
        build_repository(example_directory(), place)
    except OSError as error:  # of several files together nothing is said but their names
        raise not_written(place, error.strerror or "not every file has room") from error
    say(f"adapterbot gate --base main --head {BRANCH}")
    with _inside(place):
        return gate.run(
            gate.GateOptions(base="main", head=BRANCH, out=own_folder(place)), environment={}
        )
