"""What a repository implies by the names of its files: which adapters there are, and where what
belongs to each lies. Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from fnmatch import fnmatch
from pathlib import PurePosixPath

from adapterbot.config import LOCK, SUITE, TRAINING_CONFIG, AdapterConfig, Config, key_of
from adapterbot.errors import InputError
from adapterbot.files.paths import check_text, normalise
from adapterbot.weights.peft_dir import CONFIG_NAME, WEIGHTS_NAME

MIXTURE_CONFIG = "mole_config.json"
MIXTURE_GATE = "gate.safetensors"
DECIDING = (CONFIG_NAME, WEIGHTS_NAME, MIXTURE_CONFIG, MIXTURE_GATE)
"""The files of an adapter's folder by which it answers."""
EXPERTS_FOLDER = "experts"  # where a mixture that stands alone keeps its own
_CHECKPOINT = re.compile(r"(^|/)(checkpoint|ckpt|step)[-_]?\d+(/|$)")


def discover(files: Sequence[str]) -> Config:
    """The config of a repository that has none, from the names of its files.

    One adapter directory (checkpoints of a training run do not count), `soup.yaml`, `soup.lock`
    and `evals/suite.yaml`, each at the root or beside the adapter.

    Raises:
        InputError: there is no adapter, or more than one.
    """
    adapters = adapter_directories(files)
    if not adapters:
        raise no_adapter(files, "commit a PEFT adapter directory, or name it with --adapter")
    if len(adapters) > 1:
        shown = ", ".join(sorted(adapters)[:3]) + ("…" if len(adapters) > 3 else "")
        raise InputError(
            f"holds {len(adapters)} adapters ({shown}) and no adapterbot.yaml",
            file="the repository",
            fix="list them in adapterbot.yaml, or name one with --adapter",
        )
    return Config(adapters=(_conventional(adapters[0], files),))


def no_adapter(files: Sequence[str], fix: str) -> InputError:
    """That there is none among the files; a run's checkpoints are not what is passed on."""
    runs = checkpoint_archives(files)
    return InputError(
        f"holds no adapter but the checkpoints {runs[0]}"
        if runs
        else f"holds no adapter (no {CONFIG_NAME} or {MIXTURE_CONFIG})",
        file="the repository",
        fix="copy the one to use into a folder of its own, such as adapters/NAME" if runs else fix,
    )


def adapter_directories(files: Sequence[str], config: Config | None = None) -> list[str]:
    """Every directory of an adapter, or of a mixture, among the files. Checkpoints of a training
    run do not count, by their names or since an `archive` of the config holds them; nor do the
    experts that a mixture holds."""
    named = [
        PurePosixPath(name)
        for name in files
        if name.rpartition("/")[2] in (CONFIG_NAME, MIXTURE_CONFIG) and not _CHECKPOINT.search(name)
    ]
    held = {name.parent / EXPERTS_FOLDER for name in named if name.name == MIXTURE_CONFIG}
    found = [str(name.parent) for name in named if held.isdisjoint(name.parents)]
    entries = config.adapters if config else ()
    passed = {
        path
        for archive in {entry.archive for entry in entries if entry.archive}
        for path in archived(files, normalise(archive))
    }
    passed -= {normalise(entry.path) for entry in entries}
    return [path for path in dict.fromkeys(found) if path not in passed]


def archived(files: Sequence[str], pattern: str) -> list[str]:
    """The adapter directories among the files that a pattern for checkpoints matches; or those in
    the folders that it matches, where it matches no adapter directory.

    Args:
        pattern: normalised.
    """
    directories = [
        str(PurePosixPath(name).parent) for name in files if name.rpartition("/")[2] == CONFIG_NAME
    ]
    found = [path for path in directories if _matches(path, pattern)]
    return found or [path for path in directories if _matches(path, f"{pattern}/*")]


def _matches(path: str, pattern: str) -> bool:
    # fnmatch's * crosses "/"; a pattern here matches as many folders as it names.
    return path.count("/") == pattern.count("/") and fnmatch(path, pattern)


def unlisted(config: Config, files: Sequence[str]) -> list[str]:
    """The directories of adapters that a configuration does not list."""
    listed = {normalise(adapter.path) for adapter in config.adapters}
    return [path for path in adapter_directories(files, config) if normalise(path) not in listed]


def checkpoint_archives(files: Sequence[str]) -> list[str]:
    """A pattern for each folder that holds checkpoints of a training run."""
    return sorted(
        {
            f"{PurePosixPath(name).parent.parent}/*"
            for name in files
            if name.rpartition("/")[2] == CONFIG_NAME and _CHECKPOINT.search(name)
        }
    )


def for_adapter(config: Config | None, path: str, files: Sequence[str]) -> AdapterConfig:
    """The entry for one adapter that was named by hand; conventional when the config has none."""
    path = normalise(path, field="--adapter")
    for adapter in config.adapters if config else ():
        if normalise(adapter.path) == path:
            return adapter
    return _conventional(path or ".", files)


def with_own_keys(adapters: Sequence[AdapterConfig], taken: Collection[str]) -> list[AdapterConfig]:
    """No two under one key, and none under one that is taken: `a/b` and `a-b` would share one."""
    known = set(taken)
    found: list[AdapterConfig] = []
    for adapter in adapters:
        key = adapter.key
        if key in known:
            digest = hashlib.sha256(adapter.path.encode("utf-8", "surrogateescape")).hexdigest()
            key = key_of(f"{key[:88]}-{digest[:10]}")
        known.add(key)
        found.append(adapter if key == adapter.key else adapter.model_copy(update={"key": key}))
    return found


def lock_of(config: str) -> str:
    """The lock beside a training config, by its name."""
    return PurePosixPath(config).with_suffix(".lock").as_posix()


def _conventional(path: str, files: Sequence[str]) -> AdapterConfig:
    check_text(path)
    present = set(files)

    def near(name: str) -> str:
        for parent in PurePosixPath(path).parents:
            candidate = (parent / name).as_posix()
            if candidate in present:
                return candidate
        return name

    config, lock = near(TRAINING_CONFIG), near(LOCK)
    beside = PurePosixPath(lock).with_name(TRAINING_CONFIG).as_posix()
    if {lock, beside} <= present and beside != config:
        lock = lock_of(config)  # the one that is there pins another training
    return AdapterConfig(
        path=path,
        key=key_of(path),
        config=config,
        lock=lock,
        suite=near(SUITE),
        archive=_archive(path, files),
    )


def _archive(path: str, files: Sequence[str]) -> str | None:
    """The checkpoints that lie with an adapter; or the only ones there are, where there is no other
    adapter whose run they could be."""
    archives = checkpoint_archives(files)
    own = [archive for archive in archives if archive.startswith(f"{path}/")]
    found = own or (archives if len(adapter_directories(files)) == 1 else [])
    return found[0] if len(found) == 1 else None
