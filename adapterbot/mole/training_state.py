"""What a gate's training keeps on disk, so that a killed run goes on bit for bit. (torch)"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from adapterbot.errors import InputError
from adapterbot.files.atomic import write_bytes
from adapterbot.mole.ending import STATE_NAME

_WEIGHT, _BEST, _MOMENT, _SQUARE = "gate.weight", "best.weight", "adam.m", "adam.v"


def refuse_other(place: Path, fingerprint: str) -> None:
    """Refuses a folder that holds another run's state, before anything is spent on this one.

    Raises:
        InputError: it does, or the state cannot be read.
    """
    if (place / STATE_NAME).exists():
        _read(place, fingerprint, ())


def _read(
    place: Path, fingerprint: str, names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What the state in `place` says of itself, and these of its tensors."""
    path = place / STATE_NAME
    try:
        with safe_open(path, framework="pt") as stream:
            said = dict(json.loads((stream.metadata() or {}).get("state", "{}")))
            about = {
                "fingerprint": str(said["fingerprint"]),
                "step": int(said["step"]),
                "best_loss": float(said["best_loss"]),
            }
            tensors = {name: stream.get_tensor(name) for name in names}
    except (OSError, SafetensorError, LookupError, ValueError, TypeError) as error:
        raise InputError(
            f"cannot be read: {error}", file=str(path), fix="remove it to train anew"
        ) from error
    if about["fingerprint"] != fingerprint:
        raise InputError(
            "is of a run with another configuration, other data or other adapters",
            file=str(path),
            fix="remove it to train anew, or train into another output",
        )
    return about, tensors


@dataclass
class TrainingState:
    """Steps done, and the best gate so far with its loss on the held-out rows.

    `fingerprint` stands for everything that decides the run.
    """

    fingerprint: str
    best: Tensor
    step: int = 0
    best_loss: float = math.inf

    @classmethod
    def restored(
        cls, place: Path, weight: nn.Parameter, optimiser: torch.optim.Adam, fingerprint: str
    ) -> Self:
        """The state in `place`, with gate and optimiser as they were; a fresh one if there is none.

        Raises:
            InputError: it is another run's, or cannot be read.
        """
        if not (place / STATE_NAME).exists():
            return cls(fingerprint, weight.detach().clone())
        about, tensors = _read(place, fingerprint, (_WEIGHT, _BEST, _MOMENT, _SQUARE))
        tensors = {name: tensor.to(weight.device) for name, tensor in tensors.items()}
        with torch.no_grad():
            weight.copy_(tensors[_WEIGHT])
        optimiser.state[weight] = {
            "step": torch.tensor(float(about["step"])),
            "exp_avg": tensors[_MOMENT],
            "exp_avg_sq": tensors[_SQUARE],
        }
        return cls(fingerprint, tensors[_BEST], about["step"], about["best_loss"])

    def save(self, place: Path, weight: nn.Parameter, optimiser: torch.optim.Adam) -> None:
        """Writes the state, all of it or nothing.

        Raises:
            InputError, OurFailure: as `atomic.write_bytes`.
        """
        moments = optimiser.state[weight]
        tensors = {
            _WEIGHT: weight.detach(),
            _BEST: self.best,
            _MOMENT: moments["exp_avg"],
            _SQUARE: moments["exp_avg_sq"],
        }
        about = {"fingerprint": self.fingerprint, "step": self.step, "best_loss": self.best_loss}
        content = save(
            {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
            metadata={"state": json.dumps(about)},
        )
        write_bytes(place / STATE_NAME, content)
