"""Writing a mixture: what a training made, or a copy of one that stands alone."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from adapterbot.atomic import write_bytes
from adapterbot.config import EXPERTS_FOLDER, MIXTURE_CONFIG
from adapterbot.errors import InputError
from adapterbot.mole.artifact import GATE_NAME, GATE_TENSOR, MixtureFiles
from adapterbot.weights.mixture_config import Expert, MixtureManifest
from adapterbot.weights.peft_dir import CONFIG_NAME, adapter_digest

if TYPE_CHECKING:
    from adapterbot.mole.mixture import Mixture


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
    write_bytes(directory / GATE_NAME, save({GATE_TENSOR: weight}))
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
    for at, (expert, found) in enumerate(zip(files.manifest.experts, files.parts, strict=True)):
        # Numbered: names of experts are free text, and two of them may differ in case only.
        path = f"{EXPERTS_FOLDER}/{at:02d}"
        place = unfinished / path
        place.mkdir(parents=True)
        for file in (found.path / CONFIG_NAME, found.weights_path):
            shutil.copyfile(file, place / file.name)
        copied = {"path": path, "digest": adapter_digest(place)}
        moved.append(expert.model_copy(update=copied))
    shutil.copyfile(files.path / GATE_NAME, unfinished / GATE_NAME)
    _write_manifest(unfinished, files.manifest.model_copy(update={"experts": tuple(moved)}))
    unfinished.rename(target)
    return target


def _write_manifest(directory: Path, manifest: MixtureManifest) -> None:
    content = json.dumps(manifest.model_dump(mode="json"), indent=2, sort_keys=True)
    write_bytes(directory / MIXTURE_CONFIG, f"{content}\n".encode())
