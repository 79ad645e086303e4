"""`adapterbot bank …`: banks made, filled, checked and compacted.

What comes from elsewhere (PEFT, Soup, exported files) is `bank_import`'s, what goes there
`bank_export`'s.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from adapterbot.commands.bank_opened import manifest_at, opened_to_write
from adapterbot.commands.bank_show import BankSummary, summary
from adapterbot.commands.base_option import refuse_missing
from adapterbot.errors import InputError
from adapterbot.files import jsonl, there
from adapterbot.importing import extras
from adapterbot.records import Line, Record
from adapterbot.records.base import Count

if TYPE_CHECKING:
    from adapterbot.bank.batch import Batch
    from adapterbot.bank.codec import Codec, Floats
    from adapterbot.bank.manifest import Dtype

_LINE_BYTES = 64 << 20


class Written(Record):
    """What a command that writes did."""

    path: Line
    users: Count


class Compacted(Record):
    """Bytes on disk."""

    path: Line
    before: int = Field(title="bytes before")
    after: int = Field(title="bytes after")


class Verified(Record):
    """What is wrong with a bank; nothing, when `findings` is empty."""

    path: Line
    findings: tuple[Line, ...]


class NewKey(Record):
    """An API key, which is shown this once: the bank keeps its hash."""

    user: Line
    key: Line


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
    if there.exists(path) and any(path.iterdir() if there.is_dir(path) else [path]):
        raise InputError("exists already", file=str(path), fix="name another place, or remove it")
    refuse_missing(base)
    with extras("bank,eval", "a new bank"):
        from adapterbot.bank import shared, writer
        from adapterbot.bank.base import modules_of
        from adapterbot.bank.manifest import SoupLayout, Stored, VeraLayout
    if dimension is not None:
        layout: Any = SoupLayout(size=dimension)
    else:
        wanted: Any = targets[0] if list(targets) == ["all-linear"] else targets
        layout = VeraLayout(rank=rank, modules=modules_of(base, wanted))
    tensors = shared.draw(layout, seed) if store_shared else {}
    kept = Stored(digest=shared.digest(tensors)) if tensors else shared.generated(layout, seed)
    manifest = manifest_at(
        path, name=name, base_model=base, dtype=dtype, layout=layout, shared=kept
    )
    keep = partial(shared.store, tensors=tensors) if tensors else lambda _: None
    with writer.create(path, manifest, keep) as bank:
        return summary(bank)


def add(path: Path, file: Path, *, replace: bool = False) -> Written:
    """Adds users from a JSONL file: one `{"user": …, "vector": […]}` a line.

    Each batch of 16 MiB is one transaction; after a kill, what was committed is there, and the rest
    is added with `replace`.

    Raises:
        InputError: a line is no user, or the user is there already.
    """
    users = 0

    def counted(batches: Iterator[Batch]) -> Iterator[Batch]:
        nonlocal users
        for batch in batches:
            users += len(batch.users)
            yield batch

    with opened_to_write(path) as bank:
        bank.add_all(counted(_batches(file, bank.codec)), replace=replace)
    if not users:
        raise InputError("holds no user", file=str(file), fix="write one a line")
    return Written(path=str(path), users=users)


def _batches(file: Path, codec: Codec) -> Iterator[Batch]:
    from adapterbot.bank.batch import BATCH_BYTES, Batch
    from adapterbot.bank.codec import plain

    most = max(1, BATCH_BYTES // codec.row_bytes)
    held: dict[str, Floats] = {}
    seen: set[str] = set()
    for number, user, vector in _lines(file, codec.floats):
        if user in seen:
            raise _of_line(file, number, f"{user[:80]!r} is there twice", "keep one")
        seen.add(user)
        held[user] = vector
        if len(held) == most:
            yield Batch(tuple(held), plain(list(held.values())), file.name)
            held.clear()
    if held:
        yield Batch(tuple(held), plain(list(held.values())), file.name)


def _lines(file: Path, floats: int) -> Iterator[tuple[int, str, Floats]]:
    import numpy as np

    if not there.is_file(file):
        raise InputError("does not exist", file=str(file), fix="name a JSONL file")
    shape = f'{{"user": "…", "vector": [{floats} numbers]}}'
    with file.open("rb") as stream, np.errstate(over="ignore"):
        rows = jsonl.objects(str(file), stream, limit=_LINE_BYTES, shape=shape, infinite=True)
        for number, row in rows:
            user = row.get("user")
            given: Any = row.get("vector")
            # A bool is an int to isinstance.
            numbers = isinstance(given, list) and set(map(type, given)) <= {int, float}
            if not isinstance(user, str) or not numbers or len(given) != floats:
                raise _of_line(file, number, f"is not {shape}", "correct the line")
            try:
                vector = np.array(given, np.float32)
            except OverflowError:  # of an int; a float becomes infinity
                vector = np.array([np.inf], np.float32)
            if not np.isfinite(vector).all():
                fix = "leave this user out, or train again"
                raise _of_line(file, number, "has a number too large for fp32", fix)
            yield number, user, vector


def _of_line(file: Path, number: int, problem: str, fix: str) -> InputError:
    return InputError(problem, file=str(file), field=f"line {number}", fix=fix)


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


def verify(path: Path) -> Verified:
    """What is wrong with a bank: with its rows, its records, its file, its shared tensors.

    Raises:
        InputError: it is not a bank.
    """
    with extras("bank", "banks"):
        from adapterbot.bank import verify as walk
        from adapterbot.bank.manifest import read_manifest
    findings = list(walk.verify(path))
    manifest = read_manifest(path)
    if manifest.shared.origin == "file":
        with extras("bank,eval", "shared tensors"):
            from adapterbot.bank import shared
        try:
            shared.load(path, manifest)
        except InputError as error:
            findings.append(str(error)[:1000])
    return Verified(path=str(path), findings=tuple(findings))


def compact(path: Path) -> Compacted:
    """Rewrites a bank without gaps.

    Raises:
        OurFailure: the disk is full; the bank is then as it was.
    """
    with opened_to_write(path) as bank:
        before, after = bank.compact()
    return Compacted(path=str(path), before=before, after=after)
