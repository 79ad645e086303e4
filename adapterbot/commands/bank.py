"""`adapterbot bank …`: banks made, filled, looked at, checked and compacted.

What comes from elsewhere and goes elsewhere (PEFT, Soup, exported files) is `bank_exchange`'s.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterbot import jsonl
from adapterbot.errors import InputError, OurFailure
from adapterbot.records import Line, Record
from adapterbot.records.base import Count

if TYPE_CHECKING:
    from adapterbot.bank.manifest import Dtype, Manifest
    from adapterbot.bank.store import BankStore
    from adapterbot.bank.writer import BankWriter

# How much is committed at once: enough that the disk is what one waits for.
BATCH_BYTES = 64 * 1024 * 1024


class BankSummary(Record):
    """What `show`, `create` and `import` say of a bank. Sizes are in bytes."""

    path: Line
    name: Line
    base_model: Line
    kind: Line
    dtype: Line
    users: Count
    floats: Count
    row_bytes: Count
    modules: Count
    shared: Line
    payload_bytes: int
    file_bytes: int


class UserSummary(Record):
    """What `show` says of one user."""

    user: Line
    created: Line
    source: Line
    digest: Line
    scores: dict[str, float]


class Written(Record):
    """What a command that writes did."""

    path: Line
    users: Count


class Compacted(Record):
    """Bytes on disk."""

    path: Line
    before: int
    after: int


class Verified(Record):
    """What is wrong with a bank; nothing, when `findings` is empty."""

    path: Line
    findings: tuple[Line, ...]


class Size(Record):
    """What a number of users takes, in bytes."""

    users: Count
    floats: Count
    dtype: Line
    rows: int
    shared: int
    soup: int | None = None


class NewKey(Record):
    """An API key, which is shown this once: the bank keeps its hash."""

    user: Line
    key: Line


def _engine_missing(error: ImportError) -> OurFailure:
    return OurFailure(
        f"the packages for banks do not load: {error}", fix="pip install 'adapterbot[bank]'"
    )


def opened(path: Path) -> BankStore:
    """A bank for reading.

    Raises:
        InputError: it is not one.
        OurFailure: what it takes is not installed.
    """
    try:
        from adapterbot.bank.store import BankStore
    except ImportError as error:
        raise _engine_missing(error) from error
    return BankStore(path)


def opened_to_write(path: Path) -> BankWriter:
    """As `opened`, for writing."""
    try:
        from adapterbot.bank.writer import BankWriter
    except ImportError as error:
        raise _engine_missing(error) from error
    return BankWriter(path)


# ---------------------------------------------------------------- making and filling


def create(
    path: Path,
    *,
    base: str,
    targets: Sequence[str] = ("q_proj", "v_proj"),
    rank: int = 256,
    dimension: int | None = None,
    seed: int = 0,
    store_shared: bool = False,
    dtype: Dtype = "fp32",
    name: str | None = None,
) -> BankSummary:
    """A new, empty bank.

    Args:
        path: its directory.
        base: the base model's directory, or its name on the Hub.
        targets: what a VeRA bank adapts, by PEFT's rules.
        rank: of its projections.
        dimension: with it, the bank is of Soup's kind and has one vector of this length.
        seed: of the shared projections.
        store_shared: keep them in the bank instead of drawing them from the seed.
        dtype: in which rows are kept.
        name: of the bank; its directory's.

    Raises:
        InputError: there is one already, or the base has no such modules.
    """
    try:
        from adapterbot.bank import shared, writer
        from adapterbot.bank.base import modules_of
        from adapterbot.bank.manifest import Manifest, SoupLayout, VeraLayout
    except ImportError as error:
        raise _engine_missing(error) from error
    if path.exists() and any(path.iterdir() if path.is_dir() else [path]):
        raise InputError("exists already", file=str(path), fix="name another place, or remove it")
    if dimension is not None:
        layout: Any = SoupLayout(size=dimension)
    else:
        wanted: Any = targets[0] if list(targets) == ["all-linear"] else targets
        layout = VeraLayout(rank=rank, modules=modules_of(base, wanted))
    kept: Any = (
        shared.store(path, shared.draw(layout, seed))
        if store_shared
        else shared.generated(layout, seed)
    )
    manifest = Manifest(
        name=name or path.name, base_model=base, dtype=dtype, layout=layout, shared=kept
    )
    with writer.create(path, manifest) as bank:
        return summary(bank)


def add(path: Path, file: Path, *, replace: bool = False) -> Written:
    """Adds users from a JSONL file: one `{"user": …, "vector": […]}` a line.

    Each batch of 64 MiB is one transaction; after a kill, what was committed is there, and the rest
    is added with `replace`.

    Raises:
        InputError: a line is no user, or the user is there already.
    """
    from adapterbot.bank.codec import plain

    count = 0
    with opened_to_write(path) as bank:
        batch: dict[str, Any] = {}
        most = max(1, BATCH_BYTES // bank.codec.row_bytes)

        def commit() -> None:
            bank.add(list(batch), plain(list(batch.values())), source=file.name, replace=replace)
            batch.clear()

        for number, user, vector in _lines(file, bank.codec.floats):
            if user in batch:
                raise InputError(
                    f"{user[:80]!r} is there twice",
                    file=str(file),
                    field=f"line {number}",
                    fix="keep one",
                )
            batch[user] = vector
            count += 1
            if len(batch) == most:
                commit()
        if batch:
            commit()
    return Written(path=str(path), users=count)


def _lines(file: Path, floats: int) -> Iterator[tuple[int, str, list[float]]]:
    if not file.is_file():
        raise InputError("does not exist", file=str(file), fix="name a JSONL file")
    shape = f'{{"user": "…", "vector": [{floats} numbers]}}'
    with file.open("rb") as stream:
        for number, row in jsonl.objects(str(file), stream, limit=BATCH_BYTES, shape=shape):
            user, given = row.get("user"), row.get("vector")
            entries = given if isinstance(given, list) else []
            vector = [x for x in entries if isinstance(x, int | float) and not isinstance(x, bool)]
            if not isinstance(user, str) or given != vector or len(vector) != floats:
                raise InputError(
                    f"is not {shape}",
                    file=str(file),
                    field=f"line {number}",
                    fix="correct the line",
                )
            yield number, user, vector


def remove(path: Path, users: Sequence[str]) -> Written:
    """Removes users, all or none.

    Raises:
        InputError: one of them is not there.
    """
    with opened_to_write(path) as bank:
        bank.remove(users)
    return Written(path=str(path), users=len(set(users)))


def new_key(path: Path, user: str) -> NewKey:
    """A new API key for a user, beside those that there are.

    Raises:
        InputError: there is no such user.
    """
    # 32 random bytes cannot be guessed from their hash, so no slow hash is needed.
    key = f"ab-{secrets.token_urlsafe(32)}"
    with opened_to_write(path) as bank:
        bank.add_key(user, hashlib.sha256(key.encode()).digest())
    return NewKey(user=user, key=key)


def revoke_keys(path: Path, user: str) -> Written:
    """Revokes all keys of a user."""
    with opened_to_write(path) as bank:
        bank.entry(user)
        bank.drop_keys(user)
    return Written(path=str(path), users=1)


# ---------------------------------------------------------------- looking


def summary(bank: BankStore) -> BankSummary:
    """What a bank is, and what it takes."""
    manifest, count = bank.manifest, len(bank)
    shared = manifest.shared
    file = bank.path / manifest.rows
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
        file_bytes=file.stat().st_size,
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
        InputError: neither is named, or a number is out of bounds.
    """
    from adapterbot.bank.soup import estimate_bank_size

    if path is not None:
        with opened(path) as bank:
            return _size(count, bank.manifest, bank.codec.row_bytes, None)
    if dimension is None:
        raise InputError(
            "names neither a bank nor a dimension", field="--dimension", fix="name one"
        )
    soup = estimate_bank_size(count, dimension)
    try:
        from adapterbot.bank.codec import Codec
        from adapterbot.bank.manifest import Generated, Manifest, SoupLayout
    except ImportError as error:
        raise _engine_missing(error) from error
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


# ---------------------------------------------------------------- care


def verify(path: Path) -> Verified:
    """What is wrong with a bank: with its rows, its records, its file, its shared tensors.

    Raises:
        InputError: it is not a bank.
    """
    try:
        from adapterbot.bank import verify as walk
    except ImportError as error:
        raise _engine_missing(error) from error
    findings = list(walk.verify(path))
    manifest = _manifest(path)
    if manifest.shared.origin == "file":
        from adapterbot.bank import shared

        try:
            shared.load(path, manifest)
        except InputError as error:
            findings.append(str(error)[:1000])
    return Verified(path=str(path), findings=tuple(findings))


def _manifest(path: Path) -> Manifest:
    from adapterbot.bank.manifest import read_manifest

    return read_manifest(path)


def compact(path: Path) -> Compacted:
    """Rewrites a bank without gaps.

    Raises:
        OurFailure: the disk is full; the bank is then as it was.
    """
    with opened_to_write(path) as bank:
        before, after = bank.compact()
    return Compacted(path=str(path), before=before, after=after)
