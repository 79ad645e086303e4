"""Give the action a Python that has adapterbot's requirements: the one that the user named, or an
environment of our own in the runner's tool cache. Standard library only; run with `python -I`.

An environment is built in a folder beside its final place and moved there by one rename(2), so
at its final name it is either complete or absent, whenever a job is killed. That works because
only `bin/python` of it is ever used, which holds no path of the environment itself (the scripts
beside it do, in their first line). A file lock keeps two jobs of one machine from downloading the
same gigabytes twice; the rename alone keeps them correct, also where locks do nothing.

The environment holds no code of ours: entrypoint.py brings that, so a new version of the action
with the same requirements builds nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ACTION = Path(__file__).resolve().parent.parent
BAD_INPUT = 2
FAILURE = 1
# An environment with a CUDA build of torch takes several gigabytes of the runner's disk.
UNUSED_DAYS = 30
# Where pip looks decides which build of torch it finds, so it is part of what was built.
PIP_SOURCES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS")
# lm-eval needs them, and no release of theirs has a wheel.
SOURCE_ONLY = ("rouge-score", "sqlitedict", "word2number")


@dataclass
class Stop(Exception):
    """Nothing more can be done: the exit code, and one line that says why and what to do."""

    code: int
    message: str


@dataclass(frozen=True)
class Wanted:
    """What an environment has to hold; equal values share one environment."""

    requirements: tuple[str, ...]
    constraints: str
    sources: tuple[str, ...]

    @property
    def from_source(self) -> bool:
        """Whether pip has to build some of it."""
        return any(requirement.startswith("lm-eval") for requirement in self.requirements)

    @property
    def lines(self) -> str:
        """A requirements file."""
        options = [f"--no-binary={','.join(SOURCE_ONLY)}"] if self.from_source else []
        return "".join(f"{line}\n" for line in (*options, *self.requirements))

    @property
    def key(self) -> str:
        """Names the environment: everything that could make two of them differ."""
        parts = {
            "requirements": self.requirements,
            "constraints": self.constraints,
            "sources": self.sources,
            # The environment points into this very Python and would break with it.
            "python": [sys.version, os.path.realpath(sys.executable), platform.machine()],
        }
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return f"py{sys.version_info.major}.{sys.version_info.minor}-{digest[:16]}"


def wanted(action: Path, command: str, extras: str, environ: Mapping[str, str]) -> Wanted:
    """The requirements of `command`, read from the action's own pyproject.toml.

    Args:
        action: the action's folder.
        command: `publish` and `answer` evaluate nothing, so they need nothing of torch.
        extras: names of optional dependencies, comma-separated, instead of that choice.
        environ: the environment variables that pip will see.

    Raises:
        Stop: an extra that does not exist.
    """
    project = tomllib.loads((action / "pyproject.toml").read_text("utf-8"))["project"]
    optional: dict[str, list[str]] = project.get("optional-dependencies", {})
    names = [name.strip() for name in extras.split(",") if name.strip()]
    if not names and command not in {"publish", "answer"}:
        names = ["eval"]
    if unknown := [name for name in names if name not in optional]:
        known = ", ".join(sorted(optional))
        raise Stop(BAD_INPUT, f"input extras: {unknown[0]!r} is unknown; use some of {known}")
    return Wanted(
        requirements=(
            *project["dependencies"],
            *(r for n in sorted(set(names)) for r in optional[n]),
        ),
        constraints=(action / "constraints.txt").read_text("utf-8"),
        sources=tuple(environ.get(name, "") for name in PIP_SOURCES),
    )


def unmet(requirements: tuple[str, ...]) -> list[str]:
    """What this Python lacks of `requirements`, each as `NAME>=VERSION` and perhaps `,<VERSION`."""
    found = []
    for requirement in requirements:
        name = re.split(r"[\s\[<>=!~;(]", requirement, maxsplit=1)[0]
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
            continue
        here = release(version)
        least, below = (re.search(rf"{sign}([\d.]+)", requirement) for sign in (">=", "<"))
        if (least and here < release(least[1])) or (below and here >= release(below[1])):
            found.append(f"{name} {version} where {requirement} is needed")
    return found


def release(version: str) -> tuple[int, ...]:
    """(4, 57, 6, 0) of 4.57.6rc1+cpu."""
    numbers = re.findall(r"\d+", re.split(r"[^\d.]", version, maxsplit=1)[0])
    return tuple(int(number) for number in (*numbers, 0, 0, 0, 0)[:4])


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where environments are kept: the tool cache, which outlives jobs.

    Raises:
        Stop: there is none, or it lies in the workspace, where a pull request could replace it.
    """
    if not (root := environ.get("RUNNER_TOOL_CACHE")):
        raise Stop(
            BAD_INPUT, "RUNNER_TOOL_CACHE is not set; set it, or name a Python in input python"
        )
    folder = Path(root).resolve() / "adapterbot"
    workspace = environ.get("GITHUB_WORKSPACE")
    if workspace and folder.is_relative_to(Path(workspace).resolve()):
        raise Stop(BAD_INPUT, "RUNNER_TOOL_CACHE lies inside the workspace; move it elsewhere")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def python_of(environment: Path) -> Path:
    """The interpreter of a virtual environment."""
    return environment / "bin" / "python"


def works(environment: Path) -> bool:
    """Whether the environment starts: the Python that it points to may have been removed."""
    with contextlib.suppress(OSError):
        done = subprocess.run(
            [str(python_of(environment)), "-I", "-c", "pass"], check=False, capture_output=True
        )
        return done.returncode == 0
    return False


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold a lock between the jobs of this machine; False where the file system has no locks."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another job is building this environment; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield False
            return
        yield True


def ensure(want: Wanted, folder: Path) -> Path:
    """The environment for `want` inside `folder`, built if it is not there.

    Raises:
        Stop: pip could not install the requirements.
    """
    place = folder / want.key
    if not works(place):
        with locked(folder / f".{want.key}.lock") as alone:
            if alone:
                for killed in folder.glob(f".build-{want.key}-*"):
                    shutil.rmtree(killed, ignore_errors=True)
            if not works(place):
                build(want, place)
        prune(folder, keep=place)
    with contextlib.suppress(PermissionError):  # another user's, and as good as ours
        os.utime(place)
    return place


@contextlib.contextmanager
def beside(place: Path) -> Iterator[Path]:
    """A folder on the file system of `place`, removed afterwards if it is still there."""
    folder = Path(tempfile.mkdtemp(prefix=f".build-{place.name}-", dir=place.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def build(want: Wanted, place: Path) -> None:
    """Build beside `place`, then rename."""
    if place.exists():  # its Python has gone: out of the way in one step, then deleted at leisure
        with beside(place) as trash:
            place.rename(trash / "broken")
    with beside(place) as temporary:
        install(want, temporary)
        try:
            temporary.rename(place)
        except OSError:
            # Without a lock another job may have been first: its environment is as good as ours.
            if not works(place):
                raise


def install(want: Wanted, environment: Path) -> None:
    """Make a virtual environment in an empty folder and install what is wanted.

    Raises:
        Stop: pip could not.
    """
    requirements = environment / "requirements.txt"
    requirements.write_text(want.lines, "utf-8")
    constraints = environment / "constraints.txt"
    constraints.write_text(want.constraints, "utf-8")
    pip = [str(python_of(environment)), "-I", "-m", "pip", "--disable-pip-version-check"]
    # Wheels where there are any: an sdist runs its own build script on the runner.
    options = ["--no-input", "--quiet", "--no-warn-script-location", "--only-binary=:all:"]
    commands = [
        [sys.executable, "-I", "-m", "venv", str(environment)],
        [*pip, "install", *options, "-r", str(requirements), "-c", str(constraints)],
    ]
    if want.from_source:  # by the setuptools that is pinned, not by the newest of today
        commands.insert(1, [*pip, "install", *options, "setuptools", "-c", str(constraints)])
        commands[-1].append("--no-build-isolation")
    for command in commands:
        # The working directory is the pull request's; pip has no business there.
        if subprocess.run(command, cwd=environment, check=False).returncode != 0:
            raise Stop(FAILURE, "the Python environment could not be made; pip says why above")


def prune(folder: Path, keep: Path) -> None:
    """Remove environments that no job has used for a month."""
    oldest = time.time() - UNUSED_DAYS * 24 * 3600
    for other in folder.glob("py*"):  # scores and checkpoints lie beside them
        if other != keep and other.is_dir() and other.stat().st_mtime < oldest:
            shutil.rmtree(other, ignore_errors=True)


def choose(environ: Mapping[str, str], action: Path = ACTION) -> Path:
    """The Python to run adapterbot with.

    Raises:
        Stop: there is none.
    """
    want = wanted(
        action,
        environ.get("ADAPTERBOT_COMMAND", ""),
        environ.get("ADAPTERBOT_EXTRAS", ""),
        environ,
    )
    if environ.get("ADAPTERBOT_PYTHON"):
        if lacks := unmet(want.requirements):
            raise Stop(BAD_INPUT, f"input python: there is {', '.join(lacks)}")
        return Path(sys.executable)
    return python_of(ensure(want, cache_folder(environ)))


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--list"]:  # for the image, which installs the same into its own layer
        want = wanted(ACTION, "gate", ",".join(arguments[1:]), os.environ)
        print(want.lines, end="")
        return 0
    print("::group::Python environment", flush=True)
    try:
        python = choose(os.environ)
    except Stop as stop:
        print(f"::endgroup::\n::error title=adapterbot::{stop.message}")
        return stop.code
    except OSError as error:
        why = f"{error.filename}: {error.strerror}"
        fix = "let the runner's user write RUNNER_TOOL_CACHE, or name a Python in input python"
        print(f"::endgroup::\n::error title=adapterbot::{why}; {fix}")
        return FAILURE
    print(f"{python}\n::endgroup::")
    with Path(os.environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as outputs:
        print(f"python={python}", file=outputs)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
