"""What a gate's training leaves beside its mixture: a state to go on from, and a note that it has
ended, so that nothing is loaded to find that out. Torch-free."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from adapterbot.files.atomic import write_text
from adapterbot.mole.artifact import mixture_digest
from adapterbot.records import Record
from adapterbot.records.base import Count, Digest

STATE_NAME = "training.safetensors"
ENDING_NAME = "training.json"


class Ending(Record):
    """A training that has ended.

    Attributes:
        fingerprint: of everything that decided it.
        mixture: `mixture_digest` of what it wrote.
        rows: how many it was trained on.
        held_out: how many it was measured on.
        loss: mean −log p of a held-out answer token; of a step's where none are held out.
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
        fingerprint=fingerprint,
        mixture=mixture_digest(place),
        rows=rows,
        held_out=held_out,
        loss=loss,
    )
    write_text(place / ENDING_NAME, ending.model_dump_json(indent=2) + "\n")
    return ending


def ending_in(place: Path) -> Ending | None:
    """The training that ended in `place`; None where none did, where its state was removed to train
    anew, or where the mixture is no longer the one that it wrote."""
    try:
        ending = Ending.model_validate_json((place / ENDING_NAME).read_bytes())
        stands = (place / STATE_NAME).exists() and ending.mixture == mixture_digest(place)
    except (OSError, ValidationError):
        return None
    return ending if stands else None
