"""Soup's bank: its Python interface and its `bank.json`, read and written as Soup 0.77 does.

Bounds are Soup's (`soup_cli/utils/vector_bank.py`): 16 MiB of JSON, 16,384 numbers a user, names of
128, users of 256 and base models of 512 characters. They hold for this format only.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from adapterbot.errors import InputError
from adapterbot.files import atomic, there
from adapterbot.files.strict_json import parse_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILE_LIMIT = 16 * 1024 * 1024
MAX_DIMENSION = 16_384
MAX_USERS = 1_000_000
_NAME = re.compile(r"[a-z0-9][a-z0-9._\-]{0,127}")
_OURS = "use a bank of ours, which has no such bound: `adapterbot bank create`"


@dataclass(frozen=True)
class VectorBank:
    """A scaling vector for each user, over one random projection that a seed gives.

    Attributes:
        name: lower-case letters, digits, `.`, `_` and `-`.
        base_model: what it was trained on.
        entries: user → vector, (vector_dim,) each; arrays and tensors are kept as tuples.
        projection_seed: of the shared projection.

    Raises:
        InputError: a name, a vector or the seed is out of bounds.
    """

    name: str
    base_model: str
    entries: Mapping[str, Sequence[float] | NDArray[np.floating]] = field(default_factory=dict)
    projection_seed: int = 0
    vector_dim: int | None = None

    def __post_init__(self) -> None:
        name = str(self.name).lower()
        if not _NAME.fullmatch(name):
            raise _bad("name", "must be 1 to 128 of a-z, 0-9, `.`, `_`, `-`")
        _text("base_model", self.base_model, 512)
        if type(self.projection_seed) is not int or not 0 <= self.projection_seed < 2**63:
            raise _bad("projection_seed", "must be a whole number from 0 to 2⁶³ − 1")
        if len(self.entries) > MAX_USERS:
            raise _bad("entries", f"are more than {MAX_USERS:,}", fix=_OURS)
        entries = {
            _text("user_id", user, 256): _vector(user, self.entries[user]) for user in self.entries
        }
        lengths = {len(vector) for vector in entries.values()}
        if self.vector_dim is not None:
            lengths.add(self.vector_dim)
        if len(lengths) > 1:
            raise _bad("entries", f"have vectors of {min(lengths)} and of {max(lengths)} numbers")
        if not lengths:
            raise _bad("entries", "are empty, and no vector_dim says how long a vector is")
        (dimension,) = lengths
        if type(dimension) is not int or not 1 <= dimension <= MAX_DIMENSION:
            raise _bad("vector_dim", f"must be from 1 to {MAX_DIMENSION:,}", fix=_OURS)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "entries", MappingProxyType(entries))
        object.__setattr__(self, "vector_dim", dimension)

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping that cannot be written to cannot be pickled or copied either.
        told = (self.name, self.base_model, dict(self.entries), self.projection_seed)
        return type(self), (*told, self.vector_dim)

    @property
    def dimension(self) -> int:
        """How many numbers a user has."""
        assert self.vector_dim is not None  # noqa: S101 set by __post_init__, for the type checker
        return self.vector_dim


def write_bank(bank: VectorBank, path: str | Path) -> Path:
    """Writes `bank.json`: the whole file, or none; below the current directory, through no link.

    Raises:
        InputError: the place is refused, or the file would be larger than Soup reads.
    """
    text = json.dumps(
        {
            "name": bank.name,
            "base_model": bank.base_model,
            "projection_seed": bank.projection_seed,
            "vector_dim": bank.dimension,
            "entries": [{"user_id": u, "scaling": list(v)} for u, v in bank.entries.items()],
        },
        indent=2,
        sort_keys=True,
    )
    target = _contained(path)
    if len(text.encode()) > FILE_LIMIT:
        raise _too_large(path, len(text.encode()))
    atomic.write_text(target, text)
    return target


def read_bank(path: str | Path) -> VectorBank:
    """Reads `bank.json`; below the current directory, through no link, 16 MiB at most.

    Raises:
        InputError: there is none, the place is refused, or it is not what Soup writes.
    """
    target = _contained(path)
    if not there.is_file(target):
        raise InputError("does not exist", file=str(path), fix="name Soup's bank.json")
    if (size := target.stat().st_size) > FILE_LIMIT:
        raise _too_large(path, size)
    try:
        # Numbers beyond a float are looked for with the others.
        return _parsed(parse_json(target.read_bytes().decode(), infinite=True))
    except InputError as error:
        raise InputError(error.message, file=str(path), field=error.field, fix=error.fix) from error
    except ValueError as error:
        raise InputError(
            f"is not JSON: {error}", file=str(path), fix="write it again with Soup"
        ) from error


def estimate_bank_size(num_users: int, vector_dim: int) -> int:
    """Bytes of a bank in memory: P (d × d) and a vector (d,) for each user, in fp32.

    Raises:
        InputError: a number is negative, or the vectors have no length.
    """
    users, dimension = _whole("num_users", num_users, 0), _whole("vector_dim", vector_dim, 1)
    return 4 * dimension * (dimension + users)


def _whole(what: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise _bad(what, f"must be a whole number, {least} or more")
    return int(value)


def _parsed(raw: Any) -> VectorBank:
    if not isinstance(raw, dict):
        raise _bad("the file", "is not a JSON object")
    entries: dict[str, Any] = {}
    listed = raw.get("entries", [])
    for entry in listed if isinstance(listed, list) else [None]:
        if not isinstance(entry, dict) or not isinstance(entry.get("user_id"), str):
            raise _bad("entries", "must be a list of objects with user_id and scaling")
        if entry["user_id"] in entries:
            raise _bad("user_id", f"{entry['user_id'][:80]!r} is there twice")
        entries[entry["user_id"]] = entry.get("scaling")
    if type(raw.get("vector_dim")) is not int:
        raise _bad("vector_dim", "must be a whole number")
    return VectorBank(
        raw.get("name", ""),
        raw.get("base_model", ""),
        entries,
        raw.get("projection_seed", -1),
        raw["vector_dim"],
    )


def _vector(user: str, values: Any) -> tuple[float, ...]:
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise _bad("scaling", f"of {user[:80]!r} is not a list of numbers")
    if not all(type(value) in (int, float) or hasattr(value, "__float__") for value in values):
        raise _bad("scaling", f"of {user[:80]!r} holds something that is not a number")
    try:
        vector = tuple(map(float, values))
    except (OverflowError, TypeError, ValueError) as error:
        raise _bad("scaling", f"of {user[:80]!r} holds a number that does not fit") from error
    if any(isinstance(value, bool) for value in values) or not all(map(math.isfinite, vector)):
        raise _bad("scaling", f"of {user[:80]!r} holds something that is not a finite number")
    if not 1 <= len(vector) <= MAX_DIMENSION:
        raise _bad("scaling", f"of {user[:80]!r} has {len(vector)} numbers", fix=_OURS)
    return vector


def _text(what: str, value: Any, most: int) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= most or "\0" in value:
        raise _bad(what, f"must be 1 to {most} characters without a NUL")
    return value


def _contained(path: str | Path) -> Path:
    """The file below the current directory that `path` names, reached through no link."""
    if "\0" in str(path) or not str(path):
        raise InputError("is not a path", file=repr(str(path)), fix="name a file")
    here = Path.cwd()
    target = Path(path)
    parts = (target.relative_to(here) if target.is_relative_to(here) else target).parts
    if target.is_absolute() and not target.is_relative_to(here):
        raise _outside(path)
    reached = here
    for part in parts:
        reached = reached / part
        if part == "..":
            raise _outside(path)
        if reached.is_symlink():
            raise InputError(
                "is or lies behind a symbolic link", file=str(path), fix="name the file itself"
            )
    return reached


def _outside(path: str | Path) -> InputError:
    return InputError(
        "lies outside the current directory", file=str(path), fix="change to its directory first"
    )


def _too_large(path: str | Path, size: int) -> InputError:
    return InputError(
        f"is {size:,} bytes, and Soup reads {FILE_LIMIT:,} at most",
        file=str(path),
        fix="keep it as a bank of ours, which has no such cap: `adapterbot bank create`",
    )


def _bad(what: str, problem: str, fix: str = "correct it") -> InputError:
    return InputError(problem, field=what, fix=fix)
