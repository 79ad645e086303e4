"""The action's environment: complete or absent, whoever builds and whenever somebody is killed."""

from __future__ import annotations

import importlib.metadata
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from scripts import setup_env

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "setup_env.py"


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder for pip to install from, with one package in it: no test here uses a network."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    return wheel_of(folder, "tinydep").parent


def wheel_of(folder: Path, name: str) -> Path:
    """A wheel with one module, in a folder."""
    info = f"{name}-1.0.dist-info"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", "ANSWER = 42\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        tags = "Root-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\n{tags}")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def action(tmp_path: Path) -> Path:
    """An action with one tiny requirement."""
    folder = tmp_path / "action"
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(SCRIPT, folder / "scripts")
    (folder / "pyproject.toml").write_text(
        '[project]\ndependencies = ["tinydep"]\n[project.optional-dependencies]\neval = ["torch"]\n'
    )
    (folder / "constraints.txt").write_text("tinydep==1.0\n")
    return folder


@pytest.fixture
def environ(tmp_path: Path, wheels: Path) -> dict[str, str]:
    (tmp_path / "workspace").mkdir()
    return {
        "PATH": os.environ["PATH"],
        "RUNNER_TOOL_CACHE": str(tmp_path / "tools"),
        "GITHUB_WORKSPACE": str(tmp_path / "workspace"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "ADAPTERBOT_COMMAND": "publish",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
    }


def start(action: Path, environ: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", str(action / "scripts" / "setup_env.py")],
        env=environ,
        cwd=environ["GITHUB_WORKSPACE"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    log, _ = process.communicate(timeout=120)
    return process.returncode, log


def built(environ: dict[str, str]) -> list[Path]:
    return sorted(Path(environ["RUNNER_TOOL_CACHE"], "adapterbot").glob("py*"))


def leftovers(environ: dict[str, str]) -> list[Path]:
    return sorted(Path(environ["RUNNER_TOOL_CACHE"], "adapterbot").glob(".build-*"))


def answer(environment: Path) -> str:
    code = "import tinydep; print(tinydep.ANSWER)"
    command = [str(environment / "bin" / "python"), "-I", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


# Making an environment takes seconds, so each that is made here shows several things.


def test_two_jobs_at_once_share_one_environment_that_is_then_only_found(action, environ):
    folder = Path(environ["RUNNER_TOOL_CACHE"], "adapterbot")
    unused, recent = folder / "py3.11-unused", folder / "py3.11-recent"
    checkpoints = folder / "checkpoints"  # kept beside them, by a gate that finds all it needs
    for other in (unused, recent, checkpoints):
        other.mkdir(parents=True)
    for other in (unused, checkpoints):
        os.utime(other, (0, time.time() - 31 * 24 * 3600))

    jobs = [start(action, environ), start(action, environ)]
    results = [finish(job) for job in jobs]
    assert [code for code, _ in results] == [0, 0], results
    # A new environment is the moment at which those go that no job has used for a month.
    assert [unused.exists(), recent.exists(), checkpoints.exists()] == [False, True, True]
    recent.rmdir()
    [environment] = built(environ)
    assert answer(environment) == "42"

    # Nothing to install from any more: the third job can only have found the first one's.
    code, log = finish(start(action, {**environ, "PATH": "/nowhere"}))
    assert code == 0, log
    assert built(environ) == [environment]
    assert leftovers(environ) == []
    lines = Path(environ["GITHUB_OUTPUT"]).read_text().splitlines()
    assert lines == [f"python={environment}/bin/python"] * 3


def test_what_was_killed_or_broke_is_built_anew_and_a_pull_request_is_not_imported(action, environ):
    process = start(action, environ)
    deadline = time.monotonic() + 60
    while not leftovers(environ):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.3)  # inside `python -m venv`
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert built(environ) == [], "nothing at the final name"
    assert leftovers(environ) != []

    # An environment whose Python has gone.
    want = setup_env.wanted(action, "publish", "", environ)
    environment = Path(environ["RUNNER_TOOL_CACHE"], "adapterbot", want.key)
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to("/nowhere/python")
    # Files with the names of modules that Python and pip import, in the working directory.
    workspace = Path(environ["GITHUB_WORKSPACE"])
    for name in ("sitecustomize", "usercustomize", "tomllib", "json", "pip", "tinydep"):
        (workspace / f"{name}.py").write_text("raise SystemExit('the pull request ran')\n")

    code, log = finish(start(action, {**environ, "PYTHONPATH": str(workspace)}))
    assert code == 0, log
    assert built(environ) == [environment]
    assert answer(environment) == "42"
    assert leftovers(environ) == []


def test_without_locks_the_loser_of_a_race_uses_the_winner(action, environ, tmp_path, monkeypatch):
    """Two builders that do not see each other: the second rename finds the place taken."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    want = setup_env.wanted(action, "publish", "", environ)
    folder = setup_env.cache_folder(environ)
    place = folder / want.key
    rename = Path.rename

    def overtaken(self: Path, target: Path) -> Path:
        if target == place and not place.exists():
            shutil.copytree(self, place, symlinks=True)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", overtaken)
    setup_env.build(want, place)
    assert answer(place) == "42"
    assert leftovers(environ) == []


def test_only_what_lm_eval_needs_is_built_and_pip_that_fails_leaves_nothing(
    action, environ, wheels
):
    (action / "pyproject.toml").write_text(
        '[project]\ndependencies = ["tinydep", "sqlitedict"]\n'
        '[project.optional-dependencies]\nlm-eval = ["lm-eval"]\n'
    )
    (action / "constraints.txt").write_text("setuptools==1.0\n")
    wheel_of(wheels, "lm_eval")
    made = wheel_of(wheels.parent, "sqlitedict")
    # What stands for setuptools here: its whole work is that wheel.
    with zipfile.ZipFile(wheel_of(wheels, "setuptools"), "a") as wheel:
        wheel.writestr("setuptools/__init__.py", "")
        wheel.writestr(
            "setuptools/build_meta.py",
            "import shutil\n"
            "def build_wheel(folder, *_):\n"
            f"    shutil.copy({str(made)!r}, folder)\n"
            f"    return {made.name!r}\n",
        )
    source = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: sqlitedict\nVersion: 1.0\n",
        "pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'setuptools.build_meta'",
    }
    with tarfile.open(wheels / "sqlitedict-1.0.tar.gz", "w:gz") as sdist:
        for name, text in source.items():
            info = tarfile.TarInfo(f"sqlitedict-1.0/{name}")
            info.size = len(text)
            sdist.addfile(info, io.BytesIO(text.encode()))

    code, log = finish(start(action, environ))
    assert code == 1, "nothing else is built"
    assert "sqlitedict" in log
    assert "::error title=adapterbot::the Python environment could not be made" in log
    assert built(environ) == []
    assert leftovers(environ) == []
    code, log = finish(start(action, {**environ, "ADAPTERBOT_EXTRAS": "lm-eval"}))
    assert code == 0, log
    [environment] = built(environ)
    check = [str(environment / "bin" / "python"), "-I", "-c", "import lm_eval, sqlitedict"]
    subprocess.run(check, check=True)


def test_a_tool_cache_that_cannot_be_written_is_one_line_with_what_to_do(action, environ):
    """As one that belongs to another user, which root here would write all the same."""
    Path(environ["RUNNER_TOOL_CACHE"]).touch()
    code, log = finish(start(action, environ))
    assert code == 1
    assert "Traceback" not in log
    assert "tools" in log
    assert "let the runner's user write RUNNER_TOOL_CACHE, or name a Python" in log


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"RUNNER_TOOL_CACHE": ""}, "RUNNER_TOOL_CACHE is not set"),
        ({"RUNNER_TOOL_CACHE": "."}, "lies inside the workspace"),
        ({"ADAPTERBOT_EXTRAS": "evil"}, "'evil' is unknown; use some of "),
        ({"ADAPTERBOT_PYTHON": sys.executable}, "input python: there is tinydep not installed"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(action, environ, change, message):
    code, log = finish(start(action, {**environ, **change}))
    assert code == 2, log
    assert message in log
    assert not Path(environ["GITHUB_OUTPUT"]).exists()


@pytest.mark.parametrize(
    ("here", "needed", "takes"),
    [
        ("4.57.6", ">=5.0", False),
        ("5.0.0rc1", ">=5.0", True),
        ("2.13.0+cpu", ">=2.6", True),
        ("0.20", ">=0.3", True),
        ("0.20", ">=0.19,<0.28", True),
        ("0.28.0", ">=0.19,<0.28", False),
        ("10.0", ">=9", True),
        ("1", "", True),
    ],
)
def test_a_version_that_is_not_taken_is_lacking(monkeypatch, here, needed, takes):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: here)
    lacks = [] if takes else [f"other {here} where other{needed} is needed"]
    assert setup_env.unmet((f"other{needed}",)) == lacks


def test_a_named_python_is_used_as_it_is(environ):
    named = {**environ, "ADAPTERBOT_PYTHON": sys.executable, "RUNNER_TOOL_CACHE": ""}
    code, log = finish(start(ROOT, named))
    assert code == 0, log
    assert Path(environ["GITHUB_OUTPUT"]).read_text() == f"python={sys.executable}\n"


def test_what_makes_environments_differ_is_in_the_key(action):
    keys = {
        setup_env.wanted(action, command, extras, {"PIP_FIND_LINKS": links}).key
        for command, extras, links in [
            ("publish", "", ""),
            ("gate", "", ""),
            ("publish", "", "/other"),
        ]
    }
    assert len(keys) == 3
    same = [setup_env.wanted(action, *args, {}).key for args in [("gate", ""), ("publish", "eval")]]
    assert same[0] == same[1]
    (action / "constraints.txt").write_text("tinydep==1.1\n")
    assert setup_env.wanted(action, "gate", "", {}).key != same[0]


def test_the_real_requirements_are_all_pinned():
    for command in ("publish", "gate"):
        want = setup_env.wanted(ROOT, command, "", {})
        pinned = {line.partition("==")[0].lower() for line in want.constraints.splitlines()}
        for requirement in want.requirements:
            assert requirement.partition(">=")[0].lower() in pinned
    publish = setup_env.wanted(ROOT, "publish", "", {})
    assert not any(requirement.startswith("torch") for requirement in publish.requirements)
