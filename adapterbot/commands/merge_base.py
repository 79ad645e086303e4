"""The one base of the adapters that are merged: what each of them says of it, and where it lies.

Shapes do not tell two bases of one architecture apart, so what the files say is what there is:
the name and the revision in adapter_config.json, and the digest in a soup.lock beside it.
"""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from adapterbot.commands.base_option import refuse_missing
from adapterbot.commands.merge_options import MergeOptions
from adapterbot.config import LOCK
from adapterbot.errors import InputError
from adapterbot.lock.schema import MAX_LOCK_BYTES, loads
from adapterbot.weights.peft_dir import AdapterFiles
from adapterbot.weights.trained_on import (
    base_at,
    check_base,
    check_together,
    named_base,
    said_base,
)

if TYPE_CHECKING:
    from adapterbot.weights.adapter import Adapter

_FIX = "if they were trained on one base, name it with --base"


def check_one_base(options: MergeOptions, files: Sequence[AdapterFiles]) -> None:
    """Refuses adapters that were trained, or may well have been, on different base models.

    With `--base` the user vouches for what only differs in how it is written down; shapes, and
    two different names on the Hub, are refused all the same.

    Raises:
        InputError: with what two of them say.
    """
    check_together(files)
    if options.base:
        refuse_missing(options.base)
    named = options.base or base_directory(options, files)
    for one in files if named else ():
        check_base(one, str(named))
    if not options.base:
        digests = [_locked(one) for one in files]
        for other, digest in zip(files[1:], digests[1:], strict=True):
            _refuse_unlike((files[0], digests[0]), (other, digest))


def base_name(options: MergeOptions, files: Sequence[AdapterFiles]) -> str:
    """The base by hand, or what the adapters say of it: a directory, or `org/name`, of the Hub,
    with `@revision` where they name one.

    Raises:
        InputError: nobody names it.
    """
    if options.base:
        return options.base
    named, revision = said_base([one.config for one in files])
    if named is None:
        raise InputError("is not named by the adapters", field="--base", fix="name the base model")
    return base_at(named, revision)


def base_directory(options: MergeOptions, files: Sequence[AdapterFiles]) -> Path | None:
    """The base's own directory, where it is on this machine."""
    named = options.base or said_base([one.config for one in files])[0]
    return Path(named) if named and Path(named).is_dir() else None


def with_base(merged: Adapter, options: MergeOptions, files: Sequence[AdapterFiles]) -> Adapter:
    """What is merged, saying of its base what its adapters do; what `--base` does where they say
    nothing, or not the same."""
    configs = [one.config for one in files]
    names = {_place(c.base_model_name_or_path) for c in configs if c.base_model_name_or_path}
    revisions = {c.revision for c in configs if c.revision}
    if options.base is None or (len(names) == 1 and len(revisions) <= 1):
        return merged
    name, revision = named_base(options.base)
    said = {"base_model_name_or_path": name, "revision": revision}
    return replace(merged, config=merged.config.model_copy(update=said))


def _locked(files: AdapterFiles) -> tuple[str, str] | None:
    """The base's digest in the soup.lock of the adapter's folder or of the one above, and where."""
    for folder in (files.path, files.path.resolve().parent):
        lock = folder / LOCK
        if lock.is_file():
            with lock.open("rb") as stream:
                return loads(stream.read(MAX_LOCK_BYTES), str(lock)).base_model_sha, str(lock)
    return None


def _refuse_unlike(
    one: tuple[AdapterFiles, tuple[str, str] | None],
    other: tuple[AdapterFiles, tuple[str, str] | None],
) -> None:
    (first, first_lock), (second, second_lock) = one, other
    if first_lock and second_lock:
        if first_lock[0] != second_lock[0]:
            raise InputError(
                f"is {second_lock[0][:12]}…, and {first_lock[0][:12]}… in {first_lock[1]}",
                file=second_lock[1],
                field="base_model_sha",
                fix=_FIX,
            )
        return
    said, before = (one.config.base_model_name_or_path for one in (second, first))
    if said and before and _place(said) != _place(before):
        _refuse(second, "base_model_name_or_path", said, before, first)
    said, before = (one.config.revision for one in (second, first))
    if said and before and said != before:
        _refuse(second, "revision", said, before, first)


def _refuse(
    files: AdapterFiles, field: str, said: str, before: str, other: AdapterFiles
) -> NoReturn:
    raise InputError(
        f"is {said!r}, and {before!r} in {other.config_shown}",
        file=files.config_shown,
        field=field,
        fix=_FIX,
    )


def _place(name: str) -> str:
    """The same text for the same folder, or the same model of the Hub."""
    return str(Path(name).resolve()) if Path(name).is_dir() else os.path.normpath(name).casefold()
