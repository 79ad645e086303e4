"""`lock check` beside `soup lock check`, and our hashing beside `sha256sum`.

The whole process is timed, in turns. Soup is given the hashes that ours computes; ours has them in
its cache, since nothing moved. The files to hash lie in the page cache for both.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from adapterbot.commands import lock as commands
from adapterbot.files import tree
from adapterbot.lock.hashing import hash_files
from bench import peers
from bench.figures import Figure, median

EXAMPLE = Path(__file__).parent.parent / "examples" / "tiny"
RUNS = 9
GIB = 1 << 30
BLOCK = os.urandom(1 << 20)


def in_turns(works: Sequence[Callable[[], object]], runs: int) -> list[float]:
    """The median seconds of each, after one to warm up; taken in turns, so that whatever else the
    machine does is shared."""
    taken: list[list[float]] = [[] for _ in works]
    for number in range(runs + 1):
        for work, seconds in zip(works, taken, strict=True):
            started = time.perf_counter()
            work()
            if number:
                seconds.append(time.perf_counter() - started)
    return [median(seconds) for seconds in taken]


def quiet(command: Sequence[str | Path], folder: Path) -> Callable[[], object]:
    """A process that must succeed and whose words nobody reads."""
    return lambda: subprocess.run(
        command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def start(folder: Path) -> Figure:
    """The whole process of a check where nothing moved."""
    soup = peers.soup() / "soup"
    for name in ("base", "data", "soup.yaml", "soup-env.lock"):
        source, target = EXAMPLE / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(source, target)
    lock = commands.write(folder / "soup.yaml", folder / "soup.lock")
    time.sleep(2.1)  # a file that was only just written is not cached
    ours: list[str | Path] = [Path(sys.executable).parent / "adapterbot", "lock", "check"]
    theirs: list[str | Path] = [soup, "lock", "check", "--base-model", lock.base_model]
    theirs += ["--base-sha", lock.base_model_sha, "--dataset-sha", lock.dataset_sha]
    theirs += ["--env-hash", lock.env_hash]
    a, b = in_turns([quiet(ours, folder), quiet(theirs, folder)], RUNS)
    return Figure(
        name="lock check: whole process, nothing moved",
        setting=f"examples/tiny, warm cache; soup is told the hashes; median of {RUNS} in turns",
        ours=f"{a:.3f} s",
        other=f"soup lock check {b:.3f} s",
        ratio=a / b,
    )


def hashing(folder: Path, sizes: Sequence[int], what: str, runs: int) -> Figure:
    """All files, by us with a thread per core and with one, and by `sha256sum`, which has one.

    Python's OpenSSL uses a processor's SHA instructions where it has them, and not every build of
    `sha256sum` does; our own single thread tells what the threads alone bring.
    """
    names = [f"{number:05d}" for number in range(len(sizes))]
    for name, size in zip(names, sizes, strict=True):
        with (folder / name).open("wb") as stream:
            # Every file another, and all of them too random to be compressed by a file system.
            stream.write(name.encode())
            for _ in range(size // len(BLOCK)):
                stream.write(BLOCK)
            stream.write(BLOCK[: size % len(BLOCK)])

    def afresh(workers: int | None = None) -> None:
        tree._sha256_as_seen.cache_clear()  # noqa: SLF001 what this process hashed, it remembers
        hash_files(tree.WorkTree(folder), names, workers=workers)

    a, alone, b = in_turns(
        [
            afresh,
            partial(afresh, workers=1),
            quiet(["sha256sum", *names], folder),
        ],
        runs,
    )
    total = sum(sizes) / 1e9
    for name in names:
        (folder / name).unlink()
    return Figure(
        name=f"hashing: {what}",
        setting=f"{total:.1f} GB in the page cache, {os.cpu_count()} cores, median of {runs} in "
        f"turns: {total / a:.2f} GB/s beside {total / b:.2f} GB/s; our own with one thread "
        f"{total / alone:.2f} GB/s",
        ours=f"{a:.2f} s",
        other=f"sha256sum {b:.2f} s",
        ratio=a / b,
    )


def measure() -> list[Figure]:
    """Start, one large file, and many files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "project").mkdir()
        (folder / "files").mkdir()
        return [
            start(folder / "project"),
            hashing(folder / "files", [2 * GIB], "one file of 2 GiB", 1),
            hashing(folder / "files", [8 << 20] * 128, "128 files of 8 MiB", 3),
            hashing(folder / "files", [64 << 10] * 4_000, "4,000 files of 64 KiB", 3),
        ]
