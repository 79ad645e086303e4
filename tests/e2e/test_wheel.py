"""What is released, in an environment of its own: `pip install`, then `adapterbot demo`."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("dist")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "-w",
        str(place),
        str(ROOT),
    ]
    constraints = ["--build-constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*build, *constraints], check=True)
    (found,) = place.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """adapterbot from the wheel; its requirements are those of the tests' own environment."""
    place = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    python = place / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "requirements.pth").write_text("\n".join(site.getsitepackages()))
    return place / "bin" / "adapterbot"


def test_the_wheel_holds_what_runs_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "adapterbot",
        wheel.name.rsplit("-", 3)[0] + ".dist-info",
    }
    here = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "adapterbot").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert here <= set(names), "templates and schemas too"
    assert wheel.stat().st_size < 8 * 1024 * 1024


def test_the_source_release_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    constraint = ["--constraint", str(ROOT / "constraints.txt")]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tools)]
    subprocess.run([*install, *constraint, "hatchling"], check=True)
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path), "-t", "sdist"]
    environment = {**os.environ, "PYTHONPATH": str(tools)}
    subprocess.run(build, cwd=ROOT, env=environment, check=True, capture_output=True)
    (packed,) = tmp_path.glob("*.tar.gz")
    again = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path)]
    constraints = ["--build-constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*again, str(packed), *constraints], check=True)
    (built,) = tmp_path.glob("*.whl")
    assert zipfile.ZipFile(built).namelist() == zipfile.ZipFile(wheel).namelist()


def test_the_demo_runs_from_the_wheel(program: Path, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [program, "demo", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (adapter,) = json.loads(done.stdout)["adapters"]
    assert adapter["bisect"]["first_broken"] == "checkpoint-0440"
