"""Programs, packages, GPU, memory, disk and caches of this machine."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from adapterbot.doctor.finding import Finding, Status, missing, note

NEEDED_DISK_GIB = 5.0
NEEDED_MEMORY_GIB = 4.0
_GIB = 2**30
_SECONDS = 20
_ENGINE = ("torch", "transformers", "tokenizers", "safetensors")
_EXTRAS = {
    "peft": "pip install 'adapterbot[peft]', for DoRA, IA³ and the like",
    "lmdb": "pip install 'adapterbot[bank]', for vector banks",
}
_INSTALL = "pip install 'adapterbot[eval]'"


def machine(
    caches: Mapping[str, Path], *, evaluates: bool, keyless: bool = False
) -> Iterator[Finding]:
    """Look at this machine, the quick things first.

    Args:
        caches: folders that are written to, by what is kept there; one is missing for a user
            without a home.
        evaluates: whether models run here, and not on a server.
        keyless: whether signatures of workflows are verified here.
    """
    yield Finding(what="Python", found=f"{platform.python_version()}, {sys.executable}")
    yield _git()
    for name in _ENGINE:
        yield _package(name, _INSTALL, needed=evaluates)
    for name, fix in _EXTRAS.items():
        yield _package(name, fix, needed=False)
    if keyless:
        yield _package("sigstore", "pip install 'adapterbot[keyless]'", needed=True)
    yield _temporary()  # of which torch needs one to load
    driver = _driver()
    yield driver
    yield _cuda(has_driver=driver.status is Status.OK, evaluates=evaluates)
    yield _memory()
    yield _disk("disk", Path.cwd())
    for what in ("scores kept in", "models kept in"):
        yield _writable(what, caches.get(what))


def _git() -> Finding:
    said = _said("git", "--version")
    if said is None:
        return missing("git", "not found", "install git")
    return Finding(what="git", found=said)


def _said(*command: str) -> str | None:
    """The first line that a program prints; None when it is not there or fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.splitlines()
    return lines[0].strip()[:300] if done.returncode == 0 and lines else None


def _package(name: str, fix: str, *, needed: bool) -> Finding:
    lacking = missing if needed else note
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return lacking(name, "not installed", fix)
    least = _least(name)
    if least is not None and _release(found) < _release(least):
        return lacking(name, f"{found}, older than {least}", fix)
    return Finding(what=name, found=found)


def _least(name: str) -> str | None:
    """The oldest version of a package that ours takes; None where ours is not installed."""
    with suppress(metadata.PackageNotFoundError):
        for requirement in metadata.requires("adapterbot") or ():
            if bound := re.match(rf"{name}>=([\d.]+)", requirement):
                return bound[1]
    return None


def _release(version: str) -> tuple[int, ...]:
    """(4, 57, 6, 0) of 4.57.6rc1+cpu."""
    numbers = re.findall(r"\d+", re.split(r"[^\d.]", version, maxsplit=1)[0])
    return tuple(int(number) for number in (*numbers, 0, 0, 0, 0)[:4])


# ---------------------------------------------------------------- GPU


def _driver() -> Finding:
    query = "--query-gpu=name,driver_version,memory.total,memory.used"
    said = _said("nvidia-smi", query, "--format=csv,noheader")
    if said is not None:
        return Finding(what="driver", found=said)
    if shutil.which("nvidia-smi") is None:
        return note(
            "driver",
            "no nvidia-smi",
            "evaluation runs on the CPU; with a card, install its driver, and give a "
            "container `options: --gpus all`",
        )
    return note(
        "driver",
        "nvidia-smi fails",
        "run `nvidia-smi` and mend what it says; after an update of the driver, reboot",
    )


def _cuda(*, has_driver: bool, evaluates: bool) -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        lacking = missing if evaluates else note
        return lacking("CUDA", f"unknown: torch does not load ({error})"[:300], _INSTALL)
    if torch.cuda.is_available():
        cards = torch.cuda.device_count()
        first = torch.cuda.get_device_properties(0)
        also = f" and {cards - 1} more" if cards > 1 else ""
        size = f"{first.total_memory / _GIB:.0f} GiB"
        return Finding(what="CUDA", found=f"{torch.version.cuda}, {first.name}, {size}{also}")
    if not has_driver:
        return Finding(what="CUDA", found=f"no card; torch {torch.__version__} runs on the CPU")
    build = torch.version.cuda
    return note(
        "CUDA",
        f"there is a card, and torch {torch.__version__} cannot use it",
        f"update the driver to one for CUDA {build}, or install a torch for an older CUDA"
        if build
        else "install a CUDA build of torch; this one is for CPUs",
    )


# ---------------------------------------------------------------- room


def _memory() -> Finding:
    known = _free_memory()
    if known is None:
        return Finding(what="memory", found="unknown: this system does not tell what is free")
    free = known / _GIB
    if free >= NEEDED_MEMORY_GIB:
        return Finding(what="memory", found=f"{free:.0f} GiB free")
    return note(
        "memory",
        f"{free:.1f} GiB free",
        "the base's weights must fit: take a larger runner, or `engine: {quantization: 4bit}`",
    )


def _free_memory() -> int | None:
    """Bytes that this process may still take: the machine's, or what is left to its container;
    None where neither is told, as on macOS."""
    free = None
    with suppress(ValueError, OSError, AttributeError):
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    group = Path("/sys/fs/cgroup")
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            used = int((group / "memory.current").read_text())
            left = max(0, int(limit) - used)
            free = left if free is None else min(free, left)
    except (OSError, ValueError):
        pass  # not Linux, or no cgroup of version 2: the machine's own figure stands
    return free


def _disk(what: str, place: Path) -> Finding:
    free = shutil.disk_usage(place).free / _GIB
    if free >= NEEDED_DISK_GIB:
        return Finding(what=what, found=f"{free:.0f} GiB free")
    return note(
        what, f"{free:.1f} GiB free", f"free {NEEDED_DISK_GIB:.0f} GiB for models and caches"
    )


def _temporary() -> Finding:
    """Where they go."""
    try:
        return Finding(what="temporary files", found=tempfile.gettempdir())
    except OSError as error:
        return missing(
            "temporary files",
            str(error.strerror),
            "make room there, or name another folder: TMPDIR",
        )


def _writable(what: str, place: Path | None) -> Finding:
    """Whether a file can be made where something is kept, or where its folder would be made."""
    if place is None:
        return missing(
            what,
            "nowhere: HOME is not set, and this user has no home folder",
            "set it; or ADAPTERBOT_CACHE for scores, and HF_HOME for models",
        )
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return note(
            what,
            f"{place}: {error.strerror}",
            "make it writable, or name another folder: ADAPTERBOT_CACHE for scores, HF_HOME "
            "for models",
        )
    return Finding(what=what, found=str(place))
