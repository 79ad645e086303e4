"""Writing a mixture that a training made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from adapterbot.changes.conventions import MIXTURE_GATE
from adapterbot.files.atomic import write_bytes
from adapterbot.mole.artifact import GATE_TENSOR, write_manifest
from adapterbot.weights.mixture_config import Expert, MixtureManifest
from adapterbot.weights.peft_dir import adapter_digest

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
    write_bytes(directory / MIXTURE_GATE, save({GATE_TENSOR: weight}))
    write_manifest(directory, manifest)
