"""`adapterbot bank import` and `export`: PEFT directories, Soup's bank.json, exported files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adapterbot.commands.bank import BATCH_BYTES, Written
from adapterbot.commands.bank_opened import opened as opened_to_read
from adapterbot.commands.bank_opened import opened_to_write
from adapterbot.commands.bank_show import BankSummary, summary
from adapterbot.errors import InputError
from adapterbot.importing import extras

if TYPE_CHECKING:
    from adapterbot.bank.codec import Rows
    from adapterbot.bank.manifest import Dtype, Manifest
    from adapterbot.bank.writer import BankWriter

Form = Literal["file", "peft", "lora", "soup"]


def import_(
    path: Path,
    sources: Sequence[str],
    *,
    base: str | None = None,
    dtype: Dtype = "fp32",
    replace: bool = False,
) -> BankSummary:
    """Takes users from elsewhere into a bank, which is made if it is not there yet.

    Args:
        path: the bank's directory.
        sources: each a PEFT directory (`ann=adapters/ann`, or the directory's name is the user's),
            Soup's bank.json, or a file that `export` wrote.
        base: the base model, where a VeRA adapter does not name a directory or a model of the Hub.
        dtype: of a bank that is made now.
        replace: whether users that are there already get new rows.

    Raises:
        InputError: a source is broken, or of another kind than the bank.
    """
    with extras("bank,eval", "banks"):
        import adapterbot.bank.shared
        import adapterbot.bank.writer  # noqa: F401
    for source in sources:
        user, file = _named(source)
        if file.is_dir():
            _from_peft(path, user or file.name, file, base, dtype, replace)
        elif file.suffix == ".json":
            _from_soup(path, file, dtype, replace)
        else:
            _from_file(path, file, replace)
    with opened_to_read(path) as bank:
        return summary(bank)


def _named(source: str) -> tuple[str | None, Path]:
    if not Path(source).exists() and "=" in source:
        user, _, place = source.partition("=")
        return user, Path(place)
    return None, Path(source)


def _from_peft(
    path: Path, user: str, directory: Path, base: str | None, dtype: Dtype, replace: bool
) -> None:
    from adapterbot.bank.base import by_name
    from adapterbot.bank.manifest import Module
    from adapterbot.bank.peft_read import read_checkpoint
    from adapterbot.weights.peft_dir import read_adapter_dir

    trained_on = base or read_adapter_dir(directory).config.base_model_name_or_path or ""

    def modules(names: Sequence[str]) -> dict[str, Module]:
        if (path / "manifest.json").exists():
            with opened_to_read(path) as bank:
                known = {m.name: m for m in getattr(bank.manifest.layout, "modules", ())}
            if set(names) == set(known):
                return known
        return dict(by_name(trained_on, names))

    found = read_checkpoint(directory, modules)
    with _bank(path, found.layout, found.shared, found.seed, trained_on, dtype) as bank:
        bank.add([user], found.row, source=str(directory)[-200:], replace=replace)


def _bank(
    path: Path, layout: Any, tensors: Any, seed: int | None, base: str, dtype: Dtype
) -> BankWriter:
    """The bank in `path` if rows of this layout belong there; a new one where there is none."""
    from adapterbot.bank import shared
    from adapterbot.bank.manifest import Manifest
    from adapterbot.bank.writer import create

    if (path / "manifest.json").exists():
        bank = opened_to_write(path)
        same = bank.manifest.layout == layout
        if same and shared.digest(tensors) == bank.manifest.shared.digest:
            return bank
        bank.close()
        raise InputError(
            "has other shared tensors" if same else "has other modules, ranks or kind",
            file=str(path),
            fix="import adapters that were trained with the same options and projection",
        )
    kept: Any = shared.store(path, tensors) if seed is None else shared.generated(layout, seed)
    manifest = Manifest(
        name=path.name, base_model=base or "unknown", dtype=dtype, layout=layout, shared=kept
    )
    return create(path, manifest)


def _from_soup(path: Path, file: Path, dtype: Dtype, replace: bool) -> None:
    import numpy as np

    from adapterbot.bank import shared
    from adapterbot.bank.codec import plain
    from adapterbot.bank.manifest import SoupLayout
    from adapterbot.bank.soup import read_bank

    found = read_bank(file)
    layout, seed = SoupLayout(size=found.dimension), found.projection_seed
    tensors = shared.draw(layout, seed)
    with _bank(path, layout, tensors, seed, found.base_model, dtype) as bank:
        rows = plain(np.array(list(found.entries.values()), np.float32).reshape(-1, layout.size))
        bank.add(list(found.entries), rows, source=file.name, replace=replace)


def _from_file(path: Path, file: Path, replace: bool) -> None:
    from adapterbot.bank.portable import read_portable
    from adapterbot.bank.source import PortableSource

    found = read_portable(file)
    tensors = PortableSource(found).shared()
    manifest: Manifest = found.manifest
    seed = manifest.shared.seed if manifest.shared.origin == "seed" else None
    with _bank(path, manifest.layout, tensors, seed, manifest.base_model, manifest.dtype) as bank:
        for users, rows in found.batches(max(1, BATCH_BYTES // bank.codec.row_bytes)):
            bank.add(users, rows, source=file.name, replace=replace)


def export(
    path: Path,
    out: Path,
    users: Sequence[str],
    *,
    form: Form = "file",
    store_shared: bool = False,
    projection: bool = True,
) -> Written:
    """Writes users of a bank in a form that others read.

    Args:
        path: the bank's directory.
        out: a file for `file` and `soup`; a directory for `peft` and `lora`.
        users: whom; all of them where none is named.
        form: `file` for one safetensors file, `soup` for Soup's bank.json, `peft` for the adapter
            that PEFT would have saved, `lora` for the LoRA that equals it.
        store_shared: `file` holds the shared tensors even where a seed gives them.
        projection: `peft` saves VeRA's A and B too.

    Raises:
        InputError: there is no such user, or the bank has no such form.
    """
    with opened_to_read(path) as bank:
        if form == "soup":
            return _to_soup(bank, out, users)
        from adapterbot.bank import peft_write, shared
        from adapterbot.bank.manifest import Stored
        from adapterbot.bank.portable import write_portable

        manifest = bank.manifest
        if form == "file":
            if manifest.shared.origin == "seed" and not store_shared:
                count = write_portable(bank, out, users or None)
                return Written(path=str(out), users=count)
            tensors = shared.load(path, manifest)
            kept = Stored(digest=manifest.shared.digest)
            arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
            count = write_portable(bank, out, users or None, kept=kept, shared=arrays)
            return Written(path=str(out), users=count)
        if len(users) != 1:
            raise InputError("takes one user", field=f"--as {form}", fix="name it with --user")
        tensors, row = shared.load(path, manifest), bank.gather(users, check=True)
        if form == "peft":
            peft_write.write_peft(manifest, tensors, row, out, projection=projection)
        else:
            peft_write.write_lora(manifest, tensors, row, out)
    return Written(path=str(out), users=1)


def _to_soup(bank: Any, out: Path, users: Sequence[str]) -> Written:
    from adapterbot.bank.soup import VectorBank, write_bank

    manifest: Manifest = bank.manifest
    if manifest.layout.kind != "soup" or manifest.shared.origin != "seed":
        raise InputError(
            f"is a {manifest.layout.kind} bank, which Soup's format cannot hold",
            file=str(bank.path),
            fix="export it as a file, or a user as PEFT",
        )
    names = list(users or bank.users())
    rows: Rows = bank.gather(names, check=True)
    write_bank(
        VectorBank(
            name=manifest.name,
            base_model=manifest.base_model,
            entries=dict(zip(names, rows.values.tolist(), strict=True)),
            projection_seed=manifest.shared.seed,
            vector_dim=manifest.floats,
        ),
        out,
    )
    return Written(path=str(out), users=len(names))
