"""`adapterbot bank export`: PEFT directories, Soup's bank.json, files that travel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from adapterbot.commands.bank import Written
from adapterbot.commands.bank_opened import opened
from adapterbot.commands.spared import spare
from adapterbot.errors import InputError
from adapterbot.importing import extras

if TYPE_CHECKING:
    from adapterbot.bank.store import BankStore

Form = Literal["file", "peft", "lora", "soup"]
_AT_ONCE = 1024  # rows


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
        out: a file for `file` and `soup`; a directory for `peft` and `lora`.
        users: whom; all of them where none is named.
        form: `file` for one safetensors file, `soup` for Soup's bank.json, `peft` for the adapter
            that PEFT would have saved, `lora` for the LoRA that equals it.
        store_shared: `file` holds the shared tensors even where a seed gives them.
        projection: `peft` saves VeRA's A and B too.

    Raises:
        InputError: there is no such user, the bank has no such form, the form has no such option,
            or a directory to write is there and not empty.
    """
    for option, given, reader in (
        ("--store-shared", store_shared, "file"),
        ("--no-projection", not projection, "peft"),
    ):
        if given and form != reader:
            raise InputError(
                f"means nothing to --as {form}",
                field=option,
                fix=f"leave it out, or say --as {reader}",
            )
    spare(out, path, field="out")
    with opened(path) as bank:
        if form == "soup":
            return _to_soup(bank, out, users)
        if form == "file":
            return _to_file(bank, out, users, store_shared=store_shared)
        return _to_directory(bank, out, users, form, projection=projection)


def _to_file(bank: BankStore, out: Path, users: Sequence[str], *, store_shared: bool) -> Written:
    from adapterbot.bank.manifest import Stored
    from adapterbot.bank.portable import write_portable

    manifest = bank.manifest
    if manifest.shared.origin == "seed" and not store_shared:
        count = write_portable(bank, out, users or None)
    else:
        with extras("bank,eval", "shared tensors"):
            from adapterbot.bank import shared
        tensors = shared.load(bank.path, manifest)
        kept = Stored(digest=manifest.shared.digest)
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        count = write_portable(bank, out, users or None, kept=kept, shared=arrays)
    return Written(path=str(out), users=count)


def _to_directory(
    bank: BankStore, out: Path, users: Sequence[str], form: Form, *, projection: bool
) -> Written:
    with extras("bank,eval", "PEFT's form"):
        from adapterbot.bank import peft_write, shared
    if out.is_dir() and any(out.iterdir()):
        raise InputError("exists already", file=str(out), fix="name a new directory")
    if len(users) != 1:
        raise InputError("takes one user", field=f"--as {form}", fix="name it with --user")
    manifest = bank.manifest
    tensors, row = shared.load(bank.path, manifest), bank.gather(users, check=True)
    if form == "peft":
        peft_write.write_peft(manifest, tensors, row, out, projection=projection)
    else:
        peft_write.write_lora(manifest, tensors, row, out)
    return Written(path=str(out), users=1)


def _to_soup(bank: BankStore, out: Path, users: Sequence[str]) -> Written:
    from adapterbot.bank.soup import VectorBank, write_bank

    manifest = bank.manifest
    if manifest.layout.kind != "soup" or manifest.shared.origin != "seed":
        raise InputError(
            f"is a {manifest.layout.kind} bank, which Soup's format cannot hold",
            file=str(bank.path),
            fix="export it as a file, or a user as PEFT",
        )
    with bank.picked(list(dict.fromkeys(users)) or None) as (names, parts):
        rows = [row for part in parts(_AT_ONCE) for row in bank.codec.decode(part).values.tolist()]
    write_bank(
        VectorBank(
            name=manifest.name,
            base_model=manifest.base_model,
            entries=dict(zip(names, rows, strict=True)),
            projection_seed=manifest.shared.seed,
            vector_dim=manifest.floats,
        ),
        out,
    )
    return Written(path=str(out), users=len(names))
