"""`adapterbot bank import`: PEFT directories, Soup's bank.json, exported files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterbot.commands.bank_opened import manifest_at, opened, opened_to_write
from adapterbot.commands.bank_show import BankSummary, summary
from adapterbot.errors import InputError
from adapterbot.files import there
from adapterbot.importing import extras
from adapterbot.weights.trained_on import names_another

if TYPE_CHECKING:
    from adapterbot.bank.codec import Rows
    from adapterbot.bank.manifest import Dtype, Layout, Manifest, Module
    from adapterbot.bank.writer import BankWriter

# Of rows that wait for the last source to be read; sources that hold less are taken all or none.
_WAITING_BYTES = 64 << 20

UNKNOWN = "unknown"
"""The base model of a bank whose first source named none."""


@dataclass(frozen=True)
class _Arrival:
    """What a source holds: users, a batch at a time, and what they share."""

    shown: str
    layout: Layout
    shared: Mapping[str, Any]
    seed: int | None
    base: str
    users: Iterable[tuple[Sequence[str], Rows]]
    dtype: Dtype = "fp32"


def import_(
    path: Path,
    sources: Sequence[str],
    *,
    base: str | None = None,
    dtype: Dtype | None = None,
    replace: bool = False,
) -> BankSummary:
    """Takes users from elsewhere into a bank, which is made if it is not there yet.

    Nothing is written before every source was read and found to fit, and then in one transaction,
    unless they hold more than 64 MiB of rows; then that many at a time.

    Args:
        sources: each a PEFT directory (`ann=adapters/ann`, or the directory's name is the user's),
            Soup's bank.json, or a file that `export` wrote.
        base: the base model, whatever the sources say of theirs; that of the bank, if there is one.
        dtype: of a bank that is made now; None: fp32, or as an exported file has it.
        replace: whether users that are there already get new rows.

    Raises:
        InputError: a source is not there, broken, or of another kind or base than the bank; or the
            bank is there and of another base, or keeps its rows otherwise than in `dtype`.
    """
    with extras("bank,eval", "banks"):
        import adapterbot.bank.shared
        import adapterbot.bank.writer  # noqa: F401
    incoming = _Incoming(path, base, dtype, replace=replace)
    for source in sources:
        user, file = _named(source)
        if not there.exists(file):
            raise InputError(
                "does not exist",
                file=str(file),
                fix="name a PEFT adapter's directory, Soup's bank.json or an exported file",
            )
        if there.is_dir(file):
            incoming.take(_from_peft(user or file.name, file, base, incoming))
        elif file.suffix == ".json":
            incoming.take(_from_soup(file))
        else:
            incoming.take(_from_file(file))
    incoming.write()
    with opened(path) as bank:
        return summary(bank)


class _Incoming:
    """Users who wait to be written, all of them held against the bank that they go to."""

    def __init__(self, path: Path, base: str | None, dtype: Dtype | None, *, replace: bool) -> None:
        from adapterbot.bank import shared

        self._path = path
        self._base = base
        self._dtype = dtype
        self._replace = replace
        self._manifest: Manifest | None = None
        # What a bank that is yet to be made keeps in a file.
        self._shared: Mapping[str, Any] | None = None
        self._waiting: list[tuple[str, Sequence[str], Rows]] = []
        self._bytes = 0
        # Adapters of one training share a seed, whose projections take longer than all the rest.
        self.draw = lru_cache(maxsize=1)(shared.draw)
        self._generated = lru_cache(maxsize=1)(shared.generated)
        if there.exists(path / "manifest.json"):
            with opened(path) as bank:
                self._manifest = bank.manifest
            if dtype not in (None, self._manifest.dtype):
                problem = "the bank is there already and keeps its rows in "
                raise _not_the_banks(path, "--dtype", problem + self._manifest.dtype)
            if base is not None and not _same_base(base, self._manifest.base_model):
                problem = f"is {base!r}, and the bank is of {self._manifest.base_model!r}"
                raise _not_the_banks(path, "--base", problem)

    @property
    def modules(self) -> dict[str, Module]:
        """The modules that the bank adapts, by name; none while there is no bank."""
        layout = self._manifest.layout if self._manifest else None
        return {module.name: module for module in getattr(layout, "modules", ())}

    def take(self, arrival: _Arrival) -> None:
        """Has an arrival's users wait, and writes when they are many."""
        from adapterbot.bank.codec import Codec

        manifest = self._manifest = self._manifest or self._made_for(arrival)
        self._check(arrival, manifest)
        codec = Codec(manifest)
        for users, rows in arrival.users:
            codec.check(rows, users)
            self._waiting.append((arrival.shown, users, rows))
            self._bytes += len(users) * codec.row_bytes
            if self._bytes >= _WAITING_BYTES:
                self.write()

    def write(self) -> None:
        """Adds everybody who waits, in one transaction."""
        from adapterbot.bank.batch import keys_of
        from adapterbot.bank.codec import together

        users = [user for _, some, _ in self._waiting for user in some]
        sources = [shown for shown, some, _ in self._waiting for _ in some]
        rows = together([rows for _, _, rows in self._waiting]) if users else None
        if rows is not None and self._replace:
            # Whoever comes twice is as the last source has it.
            last = sorted({user: at for at, user in enumerate(users)}.values())
            users, sources = [users[at] for at in last], [sources[at] for at in last]
            rows = rows.at(last)
        keys_of(users)  # before there is a bank
        with self._bank() as bank:
            if rows is not None:
                bank.add(users, rows, source=sources, replace=self._replace)
        self._waiting, self._bytes = [], 0

    def _bank(self) -> BankWriter:
        from adapterbot.bank import shared
        from adapterbot.bank.writer import create

        if there.exists(self._path / "manifest.json"):
            return opened_to_write(self._path)
        assert self._manifest is not None  # noqa: S101 there is at least one source
        if self._shared is None:
            return create(self._path, self._manifest)
        return create(self._path, self._manifest, partial(shared.store, tensors=self._shared))

    def _made_for(self, arrival: _Arrival) -> Manifest:
        from adapterbot.bank import shared
        from adapterbot.bank.manifest import Stored

        kept: Any
        if arrival.seed is None:
            self._shared, kept = arrival.shared, Stored(digest=shared.digest(arrival.shared))
        else:
            kept = self._generated(arrival.layout, arrival.seed)
        return manifest_at(
            self._path,
            base_model=self._base or arrival.base or UNKNOWN,
            dtype=self._dtype or arrival.dtype,
            layout=arrival.layout,
            shared=kept,
        )

    def _proof(self, arrival: _Arrival) -> str:
        from adapterbot.bank import shared

        if arrival.seed is not None:
            return self._generated(arrival.layout, arrival.seed).digest
        return shared.digest(arrival.shared)

    def _check(self, arrival: _Arrival, manifest: Manifest) -> None:
        if arrival.layout != manifest.layout:
            problem = "has other modules, ranks or kind than the bank"
        elif self._proof(arrival) != manifest.shared.digest:
            problem = "has other shared tensors than the bank"
        elif not self._base and names_another(arrival.base, manifest.base_model):
            raise InputError(
                f"is of {arrival.base!r}, and the bank of {manifest.base_model!r}",
                file=arrival.shown,
                fix=f"import it into another bank; if both are one model, "
                f"add --base {manifest.base_model}",
            )
        else:
            return
        raise InputError(
            problem,
            file=arrival.shown,
            fix="import adapters that were trained with the same options and projection",
        )


def _not_the_banks(path: Path, option: str, problem: str) -> InputError:
    fix = "leave it out, or make another bank"
    return InputError(problem, file=str(path), field=option, fix=fix)


def _same_base(one: str, other: str) -> bool:
    """Whether a typed base is the bank's; a bank whose base is not known takes any."""
    both = (Path(one), Path(other))
    same_place = all(there.is_dir(path) for path in both) and both[0].samefile(both[1])
    return other == UNKNOWN or one.casefold() == other.casefold() or same_place


def _named(source: str) -> tuple[str | None, Path]:
    if not there.exists(Path(source)) and "=" in source:
        user, _, place = source.partition("=")
        return user, Path(place)
    return None, Path(source)


def _from_peft(user: str, directory: Path, base: str | None, incoming: _Incoming) -> _Arrival:
    from adapterbot.bank.peft_read import read_checkpoint

    def modules(names: Sequence[str], said: str) -> Mapping[str, Module]:
        known = incoming.modules
        if set(names) == set(known):
            return known
        from adapterbot.bank.base import by_name

        return by_name(base or said, names)

    found = read_checkpoint(directory, modules, incoming.draw)
    return _Arrival(
        shown=str(directory)[-200:],
        layout=found.layout,
        shared=found.shared,
        seed=found.seed,
        base=found.base_model,
        users=[([user], found.row)],
    )


def _from_soup(file: Path) -> _Arrival:
    import numpy as np

    from adapterbot.bank import shared
    from adapterbot.bank.codec import plain
    from adapterbot.bank.manifest import SoupLayout
    from adapterbot.bank.soup import read_bank

    found = read_bank(file)
    layout, seed = SoupLayout(size=found.dimension), found.projection_seed
    with np.errstate(over="ignore"):  # beyond fp32 is infinity, and told below
        rows = np.array(list(found.entries.values()), np.float32).reshape(-1, layout.size)
    for user, row in zip(found.entries, rows, strict=True):
        if not np.isfinite(row).all():
            raise InputError(
                "has a number too large for fp32",
                file=str(file),
                field=user[:80],
                fix="leave this user out, or train again",
            )
    return _Arrival(
        shown=file.name,
        layout=layout,
        shared=shared.draw(layout, seed),
        seed=seed,
        base=found.base_model,
        users=[(list(found.entries), plain(rows))],
    )


def _from_file(file: Path) -> _Arrival:
    from adapterbot.bank.codec import Codec
    from adapterbot.bank.portable import read_portable
    from adapterbot.bank.source import PortableSource

    found = read_portable(file)
    manifest = found.manifest
    return _Arrival(
        shown=file.name,
        layout=manifest.layout,
        shared=PortableSource(found).shared(),
        seed=manifest.shared.seed if manifest.shared.origin == "seed" else None,
        base=manifest.base_model,
        users=found.batches(max(1, _WAITING_BYTES // Codec(manifest).row_bytes)),
        dtype=manifest.dtype,
    )
