"""Where a search stands, on disk after every generation, so that a kill costs one generation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adapterbot.errors import InputError
from adapterbot.files.atomic import write_text
from adapterbot.merge.race import Result
from adapterbot.merge.space import FloatArray

VERSION = 4
_ANEW = "remove it, and start without --resume"
_DIGITS = 64  # of a SHA-256


def save(path: Path, identity: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Replaces the checkpoint.

    Args:
        identity: what the search is of; a resumed one must be of the same.
        state: what `Driver.state` gave.

    Raises:
        OurFailure: the disk is full.
    """
    content = {"version": VERSION, "identity": dict(identity), "state": dict(state)}
    write_text(path, json.dumps(content, allow_nan=False) + "\n")


@dataclass(frozen=True)
class Checkpoint:
    """What was kept of a search.

    Attributes:
        path: where.
        identity: what the search is of.
        state: what `Driver.resume` takes.
    """

    path: Path
    identity: dict[str, Any]
    state: dict[str, Any]

    def check(self, identity: Mapping[str, Any]) -> None:
        """Holds it against the search that is to go on; of all of its identity, or of the part
        that is known by then.

        Raises:
            InputError: it is of another search.
        """
        for name, value in json.loads(json.dumps(identity)).items():
            held = self.identity.get(name)
            if held != value:
                raise InputError(
                    f"was made with {_shown(held)}, and now it is {_shown(value)}",
                    file=str(self.path),
                    field=name,
                    fix=f"resume with the same inputs; or {_ANEW}",
                )


def load(path: Path) -> Checkpoint:
    """The checkpoint in a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        content = json.loads(path.read_bytes())
        identity, state = content["identity"], content["state"]
        version = content["version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError("is not a checkpoint of a merge", file=str(path), fix=_ANEW) from error
    if version != VERSION:
        raise InputError(f"is of version {version}", file=str(path), fix=_ANEW)
    if not isinstance(identity, dict) or not isinstance(state, dict):
        raise InputError("is not a checkpoint of a merge", file=str(path), fix=_ANEW)
    return Checkpoint(path, identity, state)


def _shown(value: object) -> str:
    """A digest by its beginning, as everywhere."""
    if isinstance(value, list):
        return " ".join(map(_shown, value))
    return f"{value[:12]}…" if isinstance(value, str) and len(value) == _DIGITS else str(value)


def pack(result: Result) -> dict[str, Any]:
    """A result as JSON that loses nothing."""
    return {
        "score": result.score if math.isfinite(result.score) else None,
        "scores": [value if math.isfinite(value) else None for value in result.scores.tolist()],
        "failed": result.failed,
        "asked": result.asked,
    }


def unpack(content: Mapping[str, Any]) -> Result:
    """The inverse of `pack`."""
    scores: FloatArray = np.array(
        [math.nan if value is None else value for value in content["scores"]], dtype=float
    )
    score = -math.inf if content["score"] is None else content["score"]
    return Result(score, scores, content["failed"], content["asked"])
