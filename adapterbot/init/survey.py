"""What a repository holds that the gate can work with: adapters, training configs, checkpoints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from adapterbot.changes.conventions import (
    adapter_directories,
    checkpoint_archives,
    for_adapter,
    lock_of,
    no_adapter,
    unlisted,
    with_own_keys,
)
from adapterbot.config import SUITE, TRAINING_CONFIG, AdapterConfig, Config
from adapterbot.errors import AdapterbotError, InputError
from adapterbot.files.paths import join
from adapterbot.files.tree import Tree, uses_lfs
from adapterbot.lock.training import TrainingConfig, load_training

_SOUP_SUITE = "training.eval_gate.suite"
_SOUP_GATE = "evals/gate.yaml"


@dataclass(frozen=True)
class Survey:
    """Every adapter with its places, the training configs by path, and whether Git LFS is used."""

    adapters: tuple[AdapterConfig, ...]
    training: dict[str, TrainingConfig]
    uses_lfs: bool
    notes: tuple[str, ...]


def survey(tree: Tree, files: Sequence[str], config: Config | None = None) -> Survey:
    """Look at a repository.

    Args:
        files: the names of its files, without what Git ignores.
        config: its adapterbot.yaml, which then says where things are; None: it has none.

    Raises:
        InputError: it holds no adapter.
    """
    directories = sorted(adapter_directories(files))
    if not directories:
        raise no_adapter(
            files,
            "put what PEFT's save_pretrained wrote into a folder of it that Git does not ignore",
        )
    training, notes = _training(tree, files)
    if config is None:
        found = [_adapter(path, files, training) for path in directories]
        adapters = _own_suites(_own_locks(with_own_keys(found, ())), files, training)
    else:
        adapters = config.adapters
        notes += [
            f"{path} is not listed in the configuration: the default policy gates it"
            for path in sorted(unlisted(config, files))
        ]
    archives = checkpoint_archives(files)
    if archives and any(adapter.archive is None for adapter in adapters):
        folders = "1 folder holds" if len(archives) == 1 else f"{len(archives)} folders hold"
        notes.append(
            f"{folders} checkpoints ({', '.join(archives[:3])}): "
            "name each adapter's own as its `archive`"
        )
    notes += [
        f"{adapter.path} has no {TRAINING_CONFIG}, so it cannot be judged or locked: write one, "
        "with `base:` and `data: {train: …}`"
        for adapter in adapters
        if adapter.config not in training
    ]
    return Survey(adapters, training, uses_lfs(tree, files), tuple(notes))


def _training(tree: Tree, files: Sequence[str]) -> tuple[dict[str, TrainingConfig], list[str]]:
    found: dict[str, TrainingConfig] = {}
    notes: list[str] = []
    for name in files:
        if PurePosixPath(name).name == TRAINING_CONFIG:
            try:
                found[name] = load_training(tree, name)
            except AdapterbotError as error:
                notes.append(f"{error}: left out")
    return found, notes


def _adapter(path: str, files: Sequence[str], training: dict[str, TrainingConfig]) -> AdapterConfig:
    """The conventional places, corrected by the training config that says it writes it."""
    adapter = for_adapter(None, path, files)
    writers = [name for name, config in training.items() if _output(config) == path]
    if len(writers) == 1:
        (config,) = writers
        adapter = adapter.model_copy(update={"config": config, "lock": lock_of(config)})
    if adapter.suite in files or adapter.config not in training:
        return adapter
    suite = _soups_suite(training[adapter.config], frozenset(files))
    return adapter.model_copy(update={"suite": suite}) if suite else adapter


def _soups_suite(config: TrainingConfig, files: frozenset[str]) -> str | None:
    """The gate YAML that Soup judges a run by: the one that its config names, or the one that
    Soup's pages do. Soup reads paths from where it runs: beside the config, or at the root."""
    named = config.settings.get(_SOUP_SUITE, "")
    texts = [json.loads(named), _SOUP_GATE] if named.startswith('"') else [_SOUP_GATE]
    places = (_joined(folder, text) for text in texts for folder in (config.directory, ""))
    return next((place for place in places if place in files), None)


def _own_locks(adapters: Sequence[AdapterConfig]) -> list[AdapterConfig]:
    """The adapters, those of different trainings each with the lock of its own: one lock pins one
    training, and would be a drift of every other."""
    trainings: dict[str, set[str]] = {}
    for adapter in adapters:
        trainings.setdefault(adapter.lock, set()).add(adapter.config)
    return [
        a.model_copy(update={"lock": lock_of(a.config)}) if len(trainings[a.lock]) > 1 else a
        for a in adapters
    ]


def _own_suites(
    adapters: Sequence[AdapterConfig], files: Sequence[str], training: dict[str, TrainingConfig]
) -> tuple[AdapterConfig, ...]:
    """The adapters, each with a suite of its own data beside its training config where they would
    share one that is still to be made, and learn from different data."""
    present = set(files)
    lacking = [a for a in adapters if a.suite not in present and a.config in training]
    learnt = {a.path: _data(training[a.config]) for a in lacking}
    if len(set(learnt.values())) < 2:
        return tuple(adapters)
    suites: dict[frozenset[str], str] = {}
    for adapter in lacking:
        beside = (PurePosixPath(adapter.config).parent / SUITE).as_posix()
        suites.setdefault(learnt[adapter.path], beside)
    return tuple(
        a.model_copy(update={"suite": suites[learnt[a.path]]}) if a.path in learnt else a
        for a in adapters
    )


def data_files(config: TrainingConfig) -> frozenset[str]:
    """What it trains on and validates with, from the repository root where it lies there."""
    return frozenset(_place(config, entry.text) for entry in config.entries)


def _data(config: TrainingConfig) -> frozenset[str]:
    """The same, each with what it is for."""
    return frozenset(f"{entry.field}: {_place(config, entry.text)}" for entry in config.entries)


def _place(config: TrainingConfig, text: str) -> str:
    return _joined(config.directory, text) or text


def _output(config: TrainingConfig) -> str | None:
    if config.output is None or config.output.startswith("/"):
        return None
    return _joined(config.directory, config.output)


def _joined(folder: str, text: str) -> str | None:
    try:
        return join(folder, text)
    except InputError:
        return None  # somewhere outside of the repository
