"""`adapterbot bank show`, `list` and `size`: what a bank is, who is in it, what it takes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from adapterbot.commands.bank_opened import opened
from adapterbot.errors import InputError
from adapterbot.importing import extras
from adapterbot.records import Line, Record
from adapterbot.records.base import Count

if TYPE_CHECKING:
    from adapterbot.bank.manifest import Dtype, Manifest
    from adapterbot.bank.store import BankStore


class BankSummary(Record):
    """What `show`, `create` and `import` say of a bank. Sizes are in bytes; a title is what a
    person reads for the name of a field."""

    path: Line
    name: Line
    base_model: Line
    kind: Line
    dtype: Line
    users: Count
    floats: Count = Field(title="numbers a user")
    row_bytes: Count = Field(title="bytes a user")
    modules: Count
    shared: Line = Field(title="shared tensors")
    payload_bytes: int = Field(title="bytes of rows")
    file_bytes: int = Field(title="bytes on disk")


class UserSummary(Record):
    """What `show` says of one user."""

    user: Line
    created: Line
    source: Line
    digest: Line
    scores: dict[str, float]


class Size(Record):
    """What a number of users takes, in bytes."""

    users: Count
    floats: Count = Field(title="numbers a user")
    dtype: Line
    rows: int = Field(title="bytes of rows")
    shared: int = Field(title="bytes shared")
    soup: int | None = Field(None, title="bytes in Soup's")


def summary(bank: BankStore) -> BankSummary:
    """What a bank is, and what it takes."""
    manifest, count = bank.manifest, len(bank)
    shared = manifest.shared
    return BankSummary(
        path=str(bank.path),
        name=manifest.name,
        base_model=manifest.base_model,
        kind=manifest.layout.kind,
        dtype=manifest.dtype,
        users=count,
        floats=manifest.floats,
        row_bytes=bank.codec.row_bytes,
        modules=len(getattr(manifest.layout, "modules", ())),
        shared=f"seed {shared.seed}" if shared.origin == "seed" else "shared.safetensors",
        payload_bytes=count * bank.codec.row_bytes,
        file_bytes=bank.file_bytes,
    )


def show(path: Path) -> BankSummary:
    """What a bank is.

    Raises:
        InputError: it is not one.
    """
    with opened(path) as bank:
        return summary(bank)


def show_user(path: Path, user: str) -> UserSummary:
    """What is known of one user.

    Raises:
        InputError: there is no such user.
    """
    with opened(path) as bank:
        entry = bank.entry(user)
    return UserSummary(
        user=user,
        created=datetime.fromtimestamp(entry.created, UTC).isoformat(timespec="seconds"),
        source=entry.source,
        digest=entry.digest,
        scores=dict(entry.scores),
    )


def users(path: Path, prefix: str, limit: int | None) -> Iterator[str]:
    """Names in byte order."""
    with opened(path) as bank:
        for index, user in enumerate(bank.users(prefix)):
            if limit is not None and index == limit:
                return
            yield user


def size(count: int, *, path: Path | None, dimension: int | None, dtype: Dtype) -> Size:
    """What `count` users take: of a bank's kind, or of one vector of `dimension` numbers.

    Raises:
        InputError: neither is named, or both, or a number is out of bounds.
    """
    if path is not None and dimension is not None:
        raise InputError("cannot be used with a bank", field="--dimension", fix="drop one of them")
    from adapterbot.bank.soup import estimate_bank_size

    if path is not None:
        with opened(path) as bank:
            return _size(count, bank.manifest, bank.codec.row_bytes, None)
    if dimension is None:
        raise InputError(
            "names neither a bank nor a dimension", field="--dimension", fix="name one"
        )
    soup = estimate_bank_size(count, dimension)
    with extras("bank", "banks"):
        from adapterbot.bank.codec import Codec
        from adapterbot.bank.manifest import Generated, Manifest, SoupLayout
    manifest = Manifest(
        name="size",
        base_model="any",
        dtype=dtype,
        layout=SoupLayout(size=dimension),
        shared=Generated(generator="soup-1", seed=0, digest="0" * 64),
    )
    return _size(count, manifest, Codec(manifest).row_bytes, soup)


def _size(count: int, manifest: Manifest, row_bytes: int, soup: int | None) -> Size:
    from adapterbot.bank.manifest import shared_shapes

    numbers = sum(rows * columns for rows, columns in shared_shapes(manifest.layout).values())
    return Size(
        users=count,
        floats=manifest.floats,
        dtype=manifest.dtype,
        rows=count * row_bytes,
        shared=4 * numbers,
        soup=soup,
    )
