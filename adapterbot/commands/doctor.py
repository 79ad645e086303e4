"""`adapterbot doctor`: what this machine has of what the gate needs, and how to get the rest."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from adapterbot.records import Line, Record

NEEDED_DISK_GIB = 5


class Finding(Record):
    """One thing that was looked at. `fix` is empty when it is as it should be."""

    what: Line
    found: Line
    ok: bool
    required: bool = True
    fix: Line = ""


def examine() -> tuple[Finding, ...]:
    """Look at everything, the quick things first."""
    return tuple(_findings())


def _findings() -> Iterator[Finding]:
    version = platform.python_version()
    good = sys.version_info >= (3, 11)
    yield Finding(what="Python", found=version, ok=good, fix="" if good else "use Python ≥ 3.11")
    yield _program("git", "install git")
    yield _program("git-lfs", "install git-lfs, if adapters are kept in LFS", required=False)
    for name in ("torch", "transformers", "tokenizers", "safetensors"):
        yield _package(name, "pip install 'adapterbot[eval]'")
    yield _package(
        "peft", "pip install 'adapterbot[peft]', for DoRA, IA³ and the like", required=False
    )
    yield _package("lmdb", "pip install 'adapterbot[bank]', for vector banks", required=False)
    yield _accelerator()
    yield _disk()


def _program(name: str, fix: str, *, required: bool = True) -> Finding:
    path = shutil.which(name)
    if path is None:
        return Finding(what=name, found="not found", ok=False, required=required, fix=fix)
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    return Finding(what=name, found=lines[0] if lines else path, ok=True, required=required)


def _package(name: str, fix: str, *, required: bool = True) -> Finding:
    try:
        return Finding(what=name, found=metadata.version(name), ok=True, required=required)
    except metadata.PackageNotFoundError:
        return Finding(what=name, found="not installed", ok=False, required=required, fix=fix)


def _accelerator() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding(
            what="GPU",
            found=f"unknown: torch does not load ({error})"[:300],
            ok=False,
            required=False,
            fix="pip install 'adapterbot[eval]'",
        )
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        gib = properties.total_memory / 2**30
        return Finding(
            what="GPU",
            found=f"{properties.name}, {gib:.0f} GiB, CUDA {torch.version.cuda}",
            ok=True,
            required=False,
        )
    has_card = shutil.which("nvidia-smi") is not None
    return Finding(
        what="GPU",
        found=f"none that torch {torch.__version__} can use",
        ok=False,
        required=False,
        fix="install a CUDA build of torch that suits the driver (`nvidia-smi` shows it)"
        if has_card
        else "evaluation runs on the CPU; in a container add `options: --gpus all`",
    )


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    ok = free >= NEEDED_DISK_GIB
    return Finding(
        what="disk",
        found=f"{free:.0f} GiB free",
        ok=ok,
        required=False,
        fix="" if ok else f"free {NEEDED_DISK_GIB} GiB for models and caches",
    )
