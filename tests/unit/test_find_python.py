"""Which Python make and the action start from, and what they say when there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "find-python.sh"
GOOD = f'exec "{sys.executable}" "$@"'
TOO_OLD = "exit 3"  # what the probe answers under an old Python
WITHOUT_VENV = 'for a; do test "$a" = --any && echo /found && exit 0; done; exit 4'
BROKEN = "exit 127"  # a version manager's shim for a version that is not there


def find(tmp_path: Path, pythons: dict[str, str], *arguments: str, **environ: str):
    for name, script in pythons.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    # bash by its own path: with only our folder on PATH it would not be found.
    return subprocess.run(
        ["/bin/bash", str(SCRIPT), *arguments],
        env={"PATH": str(tmp_path), **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "pythons",
    [
        {"python3": GOOD, "python3.13": BROKEN},
        {"python3": TOO_OLD, "python3.12": GOOD},
        {"python3": TOO_OLD, "python3.14": GOOD},
        {"python3": WITHOUT_VENV, "python3.13": BROKEN, "python3.11": GOOD},
    ],
)
def test_the_first_that_will_do(tmp_path, pythons):
    done = find(tmp_path, pythons)
    assert (done.returncode, done.stdout.strip()) == (0, sys.executable), done.stderr


@pytest.mark.parametrize(
    ("pythons", "environ", "message"),
    [
        ({}, {}, "error: no Python was found (install Python 3.11"),
        ({"python3": BROKEN}, {}, "error: no Python was found"),
        ({"python3": TOO_OLD}, {}, "error: python3 is older than Python 3.11"),
        ({"python3": WITHOUT_VENV}, {}, "ensurepip is missing (install it, on Debian and Ubuntu"),
        ({"python3": GOOD}, {"PYTHON": "python9"}, "error: python9 is not a Python that runs"),
        ({"python3": GOOD, "old": TOO_OLD}, {"PYTHON": "old"}, "error: old is older"),
        ({"python3": GOOD}, {"OSTYPE": "msys"}, "Windows is not supported (use Linux"),
        ({}, {"GITHUB_ACTIONS": "true"}, "::error title=adapterbot::no Python was found"),
    ],
)
def test_none_is_one_line_and_bad_input(tmp_path, pythons, environ, message):
    done = find(tmp_path, pythons, **environ)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_a_python_that_is_only_run_needs_no_venv(tmp_path):
    done = find(tmp_path, {"own": WITHOUT_VENV}, "--any", PYTHON="own")
    assert (done.returncode, done.stdout.strip()) == (0, "/found")


def test_a_pull_request_in_the_working_directory_is_not_imported(tmp_path):
    (tmp_path / "ensurepip.py").write_text("raise SystemExit('the pull request ran')")
    done = subprocess.run(
        ["bash", str(SCRIPT)],
        cwd=tmp_path,
        env={"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_attack_a_version_managers_shim_does_not_ask_the_pull_request(tmp_path, monkeypatch):
    """asdf's runs what `.tool-versions` names, by a path if it likes."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / ".tool-versions").write_text("python path:./evil\n")
    shim = f'test -e .tool-versions && echo /evil && exit 0; exec "{sys.executable}" "$@"'

    monkeypatch.chdir(checkout)

    def found(**environ: str) -> str:
        told: str = find(tmp_path, {"python3": shim}, **environ).stdout
        return told.strip()

    assert found() == "/evil"
    assert found(GITHUB_ACTIONS="true") == sys.executable


def test_a_python_that_is_named_from_the_working_directory_is_found_on_a_runner(tmp_path):
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "python").symlink_to(sys.executable)
    done = subprocess.run(
        ["/bin/bash", str(SCRIPT), "--any"],
        cwd=tmp_path,
        env={"PATH": os.defpath, "GITHUB_ACTIONS": "true", "PYTHON": "venv/python"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_whatever_is_installed_takes_the_oldest_python_that_we_take():
    """Debian 12 has 3.11.2."""
    found = [(d.name, d.version, d.metadata["Requires-Python"]) for d in distributions()]
    assert [one for one in found if one[2] and "3.11.0" not in SpecifierSet(one[2])] == []
