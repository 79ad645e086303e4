"""A trained mixture as a directory: `mole_config.json`, `gate.safetensors`, experts by digest.

Experts are named by paths relative to the directory and pinned by the digest of their files, so
that a mixture never runs with other experts than those its gate was trained on. `export` copies
them in. Soup's `mole_manifest.json` is recognised and refused by name: its one gate blends the
logits of N + 1 passes, which no gate inside the layers can reproduce, and it lies in a pickle.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from adapterbot.atomic import write_bytes
from adapterbot.errors import InputError
from adapterbot.mole.config import GateConfig
from adapterbot.records import Digest, Name, Record
from adapterbot.weights.header import read_header
from adapterbot.weights.peft_dir import AdapterFiles, adapter_digest, check_base, read_adapter_dir

if TYPE_CHECKING:
    from torch import nn

    from adapterbot.mole.mixture import Mixture

CONFIG_NAME = "mole_config.json"
GATE_NAME = "gate.safetensors"
SOUP_MANIFEST = "mole_manifest.json"
_CONFIG_LIMIT = 1024 * 1024
_TENSOR = "gate.weight"


class Expert(Record):
    """One task adapter: how it is called, where it lies seen from the mixture, and its digest."""

    name: Name
    path: Annotated[str, Field(min_length=1, max_length=4096)]
    digest: Digest


class MixtureManifest(Record):
    """mole_config.json. Experts are in the gate's order."""

    version: Literal[1] = 1
    base_model: Annotated[str, Field(min_length=1, max_length=4096)]
    layers: Annotated[int, Field(ge=1, le=4096)]
    gate: GateConfig
    experts: Annotated[tuple[Expert, ...], Field(min_length=2, max_length=64)]


@dataclass(frozen=True)
class MixtureFiles:
    """A directory that was found sound, with its experts.

    `shown` is how errors name the directory.
    """

    path: Path
    shown: str
    manifest: MixtureManifest
    experts: tuple[AdapterFiles, ...]


def read_mixture_dir(directory: Path, *, shown: str | None = None) -> MixtureFiles:
    """What a mixture's directory holds, checked against the experts that it names. No torch.

    Raises:
        InputError: it is not a mixture, its files are broken, or an expert is missing or not the
            one that the gate was trained with.
    """
    name = shown or str(directory)
    manifest = _manifest(directory, name)
    header = read_header(directory / GATE_NAME)
    config = manifest.gate
    own = manifest.layers if config.router == "per-layer" else 1
    wanted = (own, config.num_task_adapters, config.hidden_dim)
    found = header.tensors.get(_TENSOR)
    if found is None or tuple(found.shape) != wanted:
        raise InputError(
            f"must be {wanted}, and is {'missing' if found is None else tuple(found.shape)}",
            file=f"{name}/{GATE_NAME}",
            field=_TENSOR,
            fix="push gate and configuration of the same training",
        )
    experts = tuple(_expert(directory, name, expert) for expert in manifest.experts)
    return MixtureFiles(directory, name, manifest, experts)


def _manifest(directory: Path, name: str) -> MixtureManifest:
    path = directory / CONFIG_NAME
    if not path.exists() and (directory / SOUP_MANIFEST).exists():
        raise InputError(
            "is Soup's: its gate blends the logits of separate passes, which is another function "
            "than a gate inside the layers",
            file=f"{name}/{SOUP_MANIFEST}",
            fix="train a gate over the same adapters with `adapterbot mole train`",
        )
    shown = f"{name}/{CONFIG_NAME}"
    try:
        if path.is_symlink():
            raise InputError("is a symbolic link", file=shown, fix="put the file itself there")
        if path.stat().st_size > _CONFIG_LIMIT:
            raise InputError(
                f"is larger than {_CONFIG_LIMIT:,} bytes", file=shown, fix="shorten it"
            )
        return MixtureManifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror}", file=shown, fix="name a mixture's directory"
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise InputError(first["msg"], file=shown, field=field or None, fix="correct it") from error


def _expert(directory: Path, shown: str, expert: Expert) -> AdapterFiles:
    where = f"{shown}/{CONFIG_NAME}"
    path = directory / expert.path
    if Path(expert.path).is_absolute() or path.is_symlink():
        raise InputError(
            f"{expert.path!r} is not a directory beside the mixture",
            file=where,
            field=f"experts.{expert.name}",
            fix="write a path relative to the mixture, or `adapterbot mole export` it",
        )
    files = read_adapter_dir(path, shown=f"{shown}/{expert.path}")
    if adapter_digest(path) != expert.digest:
        raise InputError(
            "is not the adapter that the gate was trained with",
            file=f"{shown}/{expert.path}",
            field=f"experts.{expert.name}",
            fix="restore that adapter, or train the gate again",
        )
    return files


def load_mixture(model: nn.Module, directory: Path | str) -> Mixture:
    """Attaches a trained mixture to a loaded transformers model.

    Args:
        model: the base that it was trained on.
        directory: of a mixture.

    Raises:
        InputError: as `read_mixture_dir`, or it does not fit the model.
    """
    return attach_mixture(model, read_mixture_dir(Path(directory)))


def attach_mixture(model: Any, files: MixtureFiles) -> Mixture:
    """As `load_mixture`, for a directory that was read already."""
    import torch
    from safetensors.torch import load_file

    from adapterbot.mole.mixture import Mixture
    from adapterbot.weights.adapter import load_adapter

    for expert in files.experts:
        check_base(expert, model.config.name_or_path)
    experts = {
        expert.name: load_adapter(found)
        for expert, found in zip(files.manifest.experts, files.experts, strict=True)
    }
    weight = load_file(files.path / GATE_NAME)[_TENSOR]
    if not torch.isfinite(weight).all():
        raise InputError(
            "holds NaN or infinity",
            file=f"{files.shown}/{GATE_NAME}",
            field=_TENSOR,
            fix="this gate diverged in training: train it again",
        )
    mixture = Mixture(model, experts, files.manifest.gate)
    if mixture.layers != files.manifest.layers:
        mixture.detach()
        raise InputError(
            f"is {files.manifest.layers}, but the experts touch {mixture.layers} layers",
            file=f"{files.shown}/{CONFIG_NAME}",
            field="layers",
            fix="push gate and experts of the same training",
        )
    with torch.no_grad():
        mixture.gate.weight.copy_(weight)
    return mixture


def save_mixture(
    directory: Path, mixture: Mixture, experts: dict[str, Path], *, base_model: str
) -> None:
    """Writes a mixture; the configuration last, so that a directory without it is not one.

    Args:
        experts: name → directory, in the gate's order; referred to by relative path.
        base_model: as the adapters' own configuration names it.

    Raises:
        InputError, OurFailure: as `atomic.write_bytes`.
    """
    from safetensors.torch import save

    weight = mixture.gate.weight.detach().cpu().contiguous()
    manifest = MixtureManifest(
        base_model=base_model,
        layers=mixture.layers,
        gate=mixture.gate.config.model_copy(update={"hidden_dim": int(weight.shape[2])}),
        experts=tuple(
            Expert(
                name=name,
                path=Path(os.path.relpath(path.resolve(), directory.resolve())).as_posix(),
                digest=adapter_digest(path),
            )
            for name, path in experts.items()
        ),
    )
    write_bytes(directory / GATE_NAME, save({_TENSOR: weight}))
    _write_manifest(directory, manifest)


def export(files: MixtureFiles, target: Path) -> Path:
    """Copies a mixture with its experts into `target`, which must not exist yet; returns it.

    Raises:
        InputError: `target` exists.
    """
    if target.exists():
        raise InputError("exists already", file=str(target), fix="name a new directory")
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    moved = []
    for at, (expert, found) in enumerate(zip(files.manifest.experts, files.experts, strict=True)):
        # Numbered: names of experts are free text, and two of them may differ in case only.
        path = f"experts/{at:02d}"
        place = unfinished / path
        place.mkdir(parents=True)
        for file in (found.path / "adapter_config.json", found.weights_path):
            shutil.copyfile(file, place / file.name)
        copied = {"path": path, "digest": adapter_digest(place)}
        moved.append(expert.model_copy(update=copied))
    shutil.copyfile(files.path / GATE_NAME, unfinished / GATE_NAME)
    _write_manifest(unfinished, files.manifest.model_copy(update={"experts": tuple(moved)}))
    unfinished.rename(target)
    return target


def _write_manifest(directory: Path, manifest: MixtureManifest) -> None:
    content = json.dumps(manifest.model_dump(mode="json"), indent=2, sort_keys=True)
    write_bytes(directory / CONFIG_NAME, f"{content}\n".encode())
