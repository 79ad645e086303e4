"""What a bank is: its manifest, and what one user's row is made of. Frozen records; no torch.

A row is one user's vectors for every adapted module, one behind the other. Which vectors those are
is the layout's: VeRA's Λ_d and Λ_b of each module (arXiv 2310.11454 eq. 2), VB-LoRA's chosen
vectors and their weights (arXiv 2405.15179 eq. 3), or the one vector of Soup's bank.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from adapterbot.errors import InputError
from adapterbot.files import there
from adapterbot.files.validation import bad_input
from adapterbot.records.base import Digest, Line, Name, Record

MANIFEST = "manifest.json"
FORMAT = 4
MANIFEST_LIMIT = 16 * 1024 * 1024
MOST_SHARED = 2**28
USER_BYTES = 480  # of an LMDB key's 511

Size = Annotated[int, Field(ge=1, le=2**24)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Dtype = Literal["fp32", "fp16", "bf16", "int8"]


class Module(Record):
    """One adapted module of the base model: a linear map of `inputs` to `outputs` features."""

    name: Line
    inputs: Size
    outputs: Size


class _Layout(Record):
    modules: tuple[Module, ...] = Field(min_length=1, max_length=100_000)

    @model_validator(mode="after")
    def _named_once(self) -> _Layout:
        if len({module.name for module in self.modules}) != len(self.modules):
            raise ValueError("names a module twice")
        return self


class VeraLayout(_Layout):
    """Per module, in this order: Λ_d (rank,) and Λ_b (outputs,)."""

    kind: Literal["vera"] = "vera"
    rank: Size

    @cached_property
    def vectors(self) -> tuple[int, ...]:
        """Lengths of a row's vectors, in order."""
        return tuple(size for m in self.modules for size in (self.rank, m.outputs))

    @property
    def choices(self) -> int:
        """How many whole numbers a row has besides: none."""
        return 0

    @property
    def width(self) -> tuple[int, int]:
        """The most inputs and outputs of any module: what the shared A and B are made for."""
        return max(m.inputs for m in self.modules), max(m.outputs for m in self.modules)


class VbLoraLayout(_Layout):
    """Per module: the weights of A's sub-vectors, then those of B's; and likewise the choices.

    A (rank, inputs) is rank·inputs/length sub-vectors, B (outputs, rank) is outputs/length·rank;
    each is Σ weight·bank[choice] over `top_k` vectors of the shared bank.
    """

    kind: Literal["vblora"] = "vblora"
    rank: Size
    length: Size
    bank_size: Size
    top_k: Size

    @model_validator(mode="after")
    def _divides(self) -> VbLoraLayout:
        for module in self.modules:
            if module.inputs % self.length or module.outputs % self.length:
                raise ValueError(f"{module.name} is not a multiple of {self.length} wide")
        if self.top_k > self.bank_size:
            raise ValueError("chooses more vectors than the bank holds")
        return self

    @cached_property
    def vectors(self) -> tuple[int, ...]:
        """Numbers of weights, in order."""
        return tuple(
            self.rank * (features // self.length) * self.top_k
            for m in self.modules
            for features in (m.inputs, m.outputs)
        )

    @property
    def choices(self) -> int:
        """How many choices a row has: one for each weight."""
        return sum(self.vectors)


class SoupLayout(Record):
    """Soup's bank: h ← h + v ⊙ (P h) behind decoder layer `layer`, P (size, size) drawn once."""

    kind: Literal["soup"] = "soup"
    size: Size
    layer: int = -1

    @property
    def vectors(self) -> tuple[int, ...]:
        """One vector."""
        return (self.size,)

    @property
    def choices(self) -> int:
        """None."""
        return 0


Layout = Annotated[VeraLayout | VbLoraLayout | SoupLayout, Field(discriminator="kind")]


def shared_shapes(layout: VeraLayout | VbLoraLayout | SoupLayout) -> dict[str, tuple[int, int]]:
    """The tensors that all users of a layout share, by name."""
    if isinstance(layout, VeraLayout):
        inputs, outputs = layout.width
        return {"A": (layout.rank, inputs), "B": (outputs, layout.rank)}
    if isinstance(layout, VbLoraLayout):
        return {"vectors": (layout.bank_size, layout.length)}
    return {"P": (layout.size, layout.size)}


def check_shared_fits(layout: VeraLayout | VbLoraLayout | SoupLayout) -> None:
    """Bounds what all users share: a stranger's few bytes must not ask for all the memory.

    Raises:
        ValueError: it is more than `MOST_SHARED` numbers.
    """
    numbers = sum(rows * columns for rows, columns in shared_shapes(layout).values())
    if numbers > MOST_SHARED:
        raise ValueError(f"shares {numbers:,} numbers, more than {MOST_SHARED:,}")


class Generated(Record):
    """Shared tensors that a seed gives; `digest` proves that this machine draws the same ones."""

    origin: Literal["seed"] = "seed"
    generator: Literal["peft-vera-1", "soup-1"]
    seed: Seed
    digest: Digest


class Stored(Record):
    """Shared tensors kept beside the rows, in `shared.safetensors`."""

    origin: Literal["file"] = "file"
    digest: Digest


class Manifest(Record):
    """All of a bank but its rows.

    Attributes:
        format: of the directory. An exported file of format 3 is as one of format 4.
        dtype: in which the rows are kept; int8 with a scale for each vector of a row.
        rows: the file that says where they lie now, beside the one that holds them; compacting
            makes new ones.
    """

    format: Literal[3, 4] = 4
    name: Name
    base_model: Line
    dtype: Dtype = "fp32"
    layout: Layout
    shared: Annotated[Generated | Stored, Field(discriminator="origin")]
    rows: Annotated[str, Field(pattern=r"^rows-[0-9]{1,9}\.mdb$")] = "rows-1.mdb"

    @field_validator("format", mode="before")
    @classmethod
    def _readable(cls, value: object) -> object:
        if value in (1, 2):
            raise ValueError(
                f"is {value}, of an older adapterbot; this one reads 4: make the bank anew"
            )
        return value

    @model_validator(mode="after")
    def _shared_fits(self) -> Manifest:
        check_shared_fits(self.layout)
        return self

    @property
    def floats(self) -> int:
        """How many numbers one user has."""
        return sum(self.layout.vectors)

    def same_rows(self, other: Manifest) -> bool:
        """Whether a row of the one means the same in the other, but for its dtype."""
        return self.layout == other.layout and self.shared.digest == other.shared.digest


def parse_manifest(text: bytes | str, shown: str) -> Manifest:
    """A manifest from JSON.

    Raises:
        InputError: it is not one, or of a later format.
    """
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise bad_input(error, file=shown, fix="restore it, or export the bank again") from error


def dump_manifest(manifest: Manifest) -> str:
    """As `parse_manifest` reads it."""
    return json.dumps(manifest.model_dump(mode="json"), indent=2) + "\n"


def read_manifest(bank: Path) -> Manifest:
    """The manifest of the bank in directory `bank`.

    Raises:
        InputError: there is none, it is a link, it cannot be read, or it is of an older format.
    """
    file = bank / MANIFEST
    if file.is_symlink() or not there.is_file(file):
        raise InputError(
            "is not a vector bank: it holds no manifest.json",
            file=str(bank),
            fix="make one with `adapterbot bank create`",
        )
    if file.stat().st_size > MANIFEST_LIMIT:
        raise InputError("is too large", file=str(file), fix="export the bank again")
    manifest = parse_manifest(file.read_bytes(), str(file))
    if manifest.format != FORMAT:
        raise InputError(
            f"is {manifest.format}, of an older adapterbot; this one reads {FORMAT}",
            file=str(file),
            field="format",
            fix="with that one `bank export` it to a file, and with this one `bank import` the file"
            " into a new bank; scores stay behind, and API keys are made anew, by `bank key`",
        )
    return manifest


def user_key(user: str) -> bytes:
    """A user's name as the store's key.

    Raises:
        InputError: it is empty, too long, or holds a NUL or a lone surrogate.
    """
    try:
        key = user.encode()
    except UnicodeEncodeError:
        key = b""
    if not key or len(key) > USER_BYTES or b"\0" in key:
        raise InputError(
            f"is not a user's name: one has 1 to {USER_BYTES} bytes of UTF-8 without a NUL",
            field=repr(user[:80]),
            fix="rename the user",
        )
    return key


def user_keys(users: Sequence[str]) -> list[bytes]:
    """`user_key` of each.

    Raises:
        InputError: one of them is no key.
    """
    try:
        keys = [user.encode() for user in users]
    except UnicodeEncodeError:
        keys = [b""]
    if not all(keys) or max(map(len, keys), default=0) > USER_BYTES or b"\0" in b"".join(keys):
        return [user_key(user) for user in users]
    return keys
