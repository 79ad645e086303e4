"""What a gate's training leaves beside its mixture: a state to go on from, and a note that it has
ended, so that nothing is loaded to find that out. Torch-free."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from adapterbot.atomic import write_text
from adapterbot.config import MIXTURE_CONFIG
from adapterbot.mole.artifact import GATE_NAME
from adapterbot.records import Record
from adapterbot.records.base import Count, Digest
from adapterbot.weights.peft_dir import files_digest

STATE_NAME = "training.safetensors"
ENDING_NAME = "training.json"


class Ending(Record):
    """A training that has ended.

    Attributes:
        fingerprint: of everything that decided it.
        mixture: `files_digest` of the configuration and the gate that it wrote.
        rows: how many it was trained on.
        held_out: how many it was measured on.
        loss: mean −log p of a held-out answer token.
    """

    fingerprint: Digest
    mixture: Digest
    rows: Count
    held_out: Count
    loss: float


def note_ending(place: Path, fingerprint: str, *, rows: int, held_out: int, loss: float) -> Ending:
    """Notes that the mixture in `place` is a training's last word.

    Raises:
        InputError, OurFailure: as `atomic.write_bytes`.
    """
    ending = Ending(
        fingerprint=fingerprint, mixture=_mixture(place), rows=rows, held_out=held_out, loss=loss
    )
    write_text(place / ENDING_NAME, ending.model_dump_json(indent=2) + "\n")
    return ending


def ending_in(place: Path) -> Ending | None:
    """The training that ended in `place`; None where none did, where its state was removed to train
    anew, or where the mixture is no longer the one that it wrote."""
    try:
        ending = Ending.model_validate_json((place / ENDING_NAME).read_bytes())
        stands = (place / STATE_NAME).exists() and ending.mixture == _mixture(place)
    except (OSError, ValidationError):
        return None
    return ending if stands else None


def _mixture(place: Path) -> str:
    return files_digest(place / MIXTURE_CONFIG, place / GATE_NAME)
