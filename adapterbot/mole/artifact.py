"""A trained mixture as a directory: `mole_config.json`, `gate.safetensors`, experts by digest.

Experts are named by paths relative to the directory and pinned by the digest of their files, so
that a mixture never runs with other experts than those its gate was trained on. Soup's
`mole_manifest.json` is recognised and refused by name: its one gate blends the logits of N + 1
passes, which no gate inside the layers can reproduce, and it lies in a pickle.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from adapterbot.changes.conventions import EXPERTS_FOLDER, MIXTURE_CONFIG, MIXTURE_GATE
from adapterbot.errors import InputError
from adapterbot.files.atomic import not_written, try_folder, write_bytes
from adapterbot.files.named import read_named
from adapterbot.files.paths import join
from adapterbot.files.tree import Tree, link_refused
from adapterbot.weights.header import read_header
from adapterbot.weights.mixture_config import Expert, MixtureManifest, Router, parse_manifest
from adapterbot.weights.peft_dir import (
    CONFIG_NAME,
    AdapterFiles,
    adapter_digest,
    files_digest,
    read_adapter_dir,
)
from adapterbot.weights.trained_on import check_base

if TYPE_CHECKING:
    from torch import nn

    from adapterbot.mole.mixture import Mixture

GATE_TENSOR = "gate.weight"
SOUP_MANIFEST = "mole_manifest.json"
_CONFIG_LIMIT = 1024 * 1024


@dataclass(frozen=True)
class MixtureFiles:
    """A directory that was found sound, with its experts.

    Attributes:
        path: the directory.
        shown: how errors name it.
        parts: the experts, in the gate's order.
    """

    path: Path
    shown: str
    manifest: MixtureManifest
    parts: tuple[AdapterFiles, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What the experts are called."""
        return tuple(expert.name for expert in self.manifest.experts)

    @property
    def digest(self) -> str:
        """As `mixture_digest`."""
        return mixture_digest(self.path)

    def attach(self, model: Any) -> Mixture:
        """Attaches the mixture to a loaded transformers model.

        Raises:
            InputError: it does not fit the model, or its gate is none.
        """
        import torch
        from safetensors.torch import load_file

        from adapterbot.mole.mixture import Mixture
        from adapterbot.weights.adapter import load_adapter

        for expert in self.parts:
            check_base(expert, model.config.name_or_path)
        experts = {
            expert.name: load_adapter(found)
            for expert, found in zip(self.manifest.experts, self.parts, strict=True)
        }
        weight = load_file(self.path / MIXTURE_GATE)[GATE_TENSOR]
        if not torch.isfinite(weight).all():
            raise InputError(
                "holds NaN or infinity",
                file=f"{self.shown}/{MIXTURE_GATE}",
                field=GATE_TENSOR,
                fix="this gate diverged in training: train it again",
            )
        mixture = Mixture(model, experts, self.manifest.gate)
        if mixture.layers != self.manifest.layers:
            mixture.detach()
            raise InputError(
                f"is {self.manifest.layers}, but the experts touch {mixture.layers} layers",
                file=f"{self.shown}/{MIXTURE_CONFIG}",
                field="layers",
                fix="push gate and experts of the same training",
            )
        with torch.no_grad():
            mixture.gate.weight.copy_(weight)
        return mixture

    def export(self, target: Path) -> Path:
        """Copies the mixture with its experts into `target`, which must not exist yet; returns it.

        Raises:
            InputError: `target` exists, or cannot be written.
            OurFailure: the disk is full. Nothing is left of the copy.
        """
        if target.exists():
            raise InputError("exists already", file=str(target), fix="name a new directory")
        try_folder(target)
        unfinished = target.with_name(f".{target.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            self._copy(unfinished)
            unfinished.rename(target)
        except OSError as error:
            raise not_written(target, error) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return target

    def _copy(self, unfinished: Path) -> None:
        moved = []
        for at, (expert, found) in enumerate(zip(self.manifest.experts, self.parts, strict=True)):
            # Numbered: names of experts are free text, and two of them may differ in case only.
            path = f"{EXPERTS_FOLDER}/{at:02d}"
            place = unfinished / path
            place.mkdir(parents=True)
            for file in (found.path / CONFIG_NAME, found.weights_path):
                shutil.copyfile(file, place / file.name)
            copied = {"path": path, "digest": adapter_digest(place)}
            moved.append(expert.model_copy(update=copied))
        shutil.copyfile(self.path / MIXTURE_GATE, unfinished / MIXTURE_GATE)
        write_manifest(unfinished, self.manifest.model_copy(update={"experts": tuple(moved)}))

    @property
    def reader(self) -> Callable[[Path], MixtureFiles]:
        """What reads an exported copy."""
        return read_mixture_dir


def mixture_digest(directory: Path) -> str:
    """SHA-256 of gate and configuration, which holds the experts' own digests."""
    return files_digest(directory / MIXTURE_CONFIG, directory / MIXTURE_GATE)


def write_manifest(directory: Path, manifest: MixtureManifest) -> None:
    """Writes the configuration of a mixture."""
    content = json.dumps(manifest.model_dump(mode="json"), indent=2, sort_keys=True)
    write_bytes(directory / MIXTURE_CONFIG, f"{content}\n".encode())


def is_mixture(directory: Path | str) -> bool:
    """Whether a directory says that it is a mixture, ours or Soup's."""
    return any(Path(directory, name).exists() for name in (MIXTURE_CONFIG, SOUP_MANIFEST))


def read_mixture_dir(directory: Path | str) -> MixtureFiles:
    """What a mixture's directory holds, checked against the experts that it names. No torch.

    Raises:
        InputError: it is not a mixture, its files are broken, or an expert is missing or not the
            one that the gate was trained with.
    """
    path, name = Path(directory), str(directory)

    def beside(expert: Expert) -> tuple[Path, str]:
        found = path / expert.path
        if Path(expert.path).is_absolute() or found.is_symlink():
            raise InputError(
                f"{expert.path!r} is not a directory beside the mixture",
                file=f"{name}/{MIXTURE_CONFIG}",
                field=f"experts.{expert.name}",
                fix="write a path relative to the mixture, or `adapterbot mole export` it",
            )
        return found, f"{name}/{expert.path}"

    return _read(path, name, beside)


def read_mixture(tree: Tree, path: str, *, shown: str | None = None) -> MixtureFiles:
    """The mixture at `path` of a tree. Its experts come from the same tree, and from nowhere else.

    Raises:
        InputError: as `read_mixture_dir`; or an expert lies outside the tree; or the mixture's
            directory holds adapters that are none of its experts, whom nobody would judge.
    """
    name = shown or path
    config = f"{name}/{MIXTURE_CONFIG}"
    used: set[str] = set()

    def in_tree(expert: Expert) -> tuple[Path, str]:
        field = f"experts.{expert.name}"
        place = join(path, expert.path, field=field)
        if not tree.has(place):
            raise InputError(
                f"names {place!r}, which does not exist in {tree.label}",
                file=config,
                field=field,
                fix="commit the expert there, or `adapterbot mole export` the mixture",
            )
        used.add(place)
        return tree.on_disk(place), place

    found = _read(tree.on_disk(path), name, in_tree)
    held = f"{path}/{EXPERTS_FOLDER}"
    for file in tree.files(held) if tree.has(held) else ():
        parent = str(PurePosixPath(file).parent)
        if PurePosixPath(file).name in (CONFIG_NAME, MIXTURE_CONFIG) and parent not in used:
            raise InputError(
                f"is in the folder of {name}'s experts, and none of them",
                file=parent,
                fix="move it out of the mixture's directory, or remove it",
            )
    return found


def _read(path: Path, name: str, place: Callable[[Expert], tuple[Path, str]]) -> MixtureFiles:
    manifest = _manifest(path, name)
    _check_gate(path / MIXTURE_GATE, f"{name}/{MIXTURE_GATE}", manifest)
    parts = tuple(
        _expert(expert, *place(expert), f"{name}/{MIXTURE_CONFIG}") for expert in manifest.experts
    )
    return MixtureFiles(path, name, manifest, parts)


def _manifest(directory: Path, name: str) -> MixtureManifest:
    path, shown = directory / MIXTURE_CONFIG, f"{name}/{MIXTURE_CONFIG}"
    if not path.exists() and (directory / SOUP_MANIFEST).exists():
        raise InputError(
            "is Soup's: its gate blends the logits of separate passes, which is another function "
            "than a gate inside the layers",
            file=f"{name}/{SOUP_MANIFEST}",
            fix="train a gate over the same adapters with `adapterbot mole train`",
        )
    if (directory / CONFIG_NAME).exists():
        if not path.exists():
            raise InputError(
                f"is an adapter, and no mixture (it holds no {MIXTURE_CONFIG})",
                file=name,
                fix="name what `adapterbot mole train` wrote",
            )
        raise InputError(
            "holds an adapter too, so it is not clear which of them is meant",
            file=name,
            fix=f"keep one of {MIXTURE_CONFIG} and {CONFIG_NAME}",
        )
    if path.is_symlink():
        raise link_refused(shown)
    content = read_named(path, limit=_CONFIG_LIMIT, fix="name a mixture's directory", shown=shown)
    return parse_manifest(content, shown)


def _check_gate(path: Path, shown: str, manifest: MixtureManifest) -> None:
    if path.is_symlink():
        raise link_refused(shown)
    header = read_header(path, shown=shown)
    gate = manifest.gate
    own = manifest.layers if gate.router is Router.PER_LAYER else 1
    wanted = ("F32", (own, gate.num_task_adapters, gate.hidden_dim))
    found = header.tensors.get(GATE_TENSOR)
    if found is None or (found.dtype, found.shape) != wanted:
        has = "missing" if found is None else f"{found.dtype} {found.shape}"
        raise InputError(
            f"must be {wanted[0]} {wanted[1]}, and is {has}",
            file=shown,
            field=GATE_TENSOR,
            fix="push gate and configuration of the same training",
        )


def _expert(expert: Expert, path: Path, shown: str, config: str) -> AdapterFiles:
    files = read_adapter_dir(path, shown=shown)
    if adapter_digest(path) != expert.digest:
        raise InputError(
            f"names {shown}, which is not the adapter that the gate was trained with",
            file=config,
            field=f"experts.{expert.name}",
            fix="restore that adapter, or train the gate again",
        )
    return files


def load_mixture(model: nn.Module, directory: Path | str) -> Mixture:
    """Attaches a trained mixture to a loaded transformers model.

    Args:
        model: the base that it was trained on.

    Raises:
        InputError: as `read_mixture_dir`, or it does not fit the model.
    """
    return read_mixture_dir(Path(directory)).attach(model)
