"""What the head adds so that people's checkouts hold another adapter than Git's objects do, which
are what is judged: files whose names are one on some machines, and attributes that rewrite them."""

from __future__ import annotations

import functools
import unicodedata

from adapterbot.changes.mixtures import readable_experts
from adapterbot.changes.sides import Sides, same
from adapterbot.errors import InputError

_ATTRIBUTES = ".gitattributes"


def refuse_disguised(where: Sides, path: str) -> None:
    """Refuses an adapter of which a checkout may hold other bytes than the head, by the head's
    doing.

    Args:
        path: of the adapter, normalised.

    Raises:
        InputError: it is one, or a file of it is a link.
    """
    parts = (path, *readable_experts(where.head, path))
    files = tuple(
        name
        for part in parts
        if where.head.has(part)
        for name in where.head.files(part)
        if part in (name, name.rpartition("/")[0])
    )
    twins = _twins(where.head.survey())
    for name in files:
        several = twins.get(_folded(name), ())
        new = next((twin for twin in several if not where.fork_point.has(twin)), None)
        if new is not None:
            other = next(twin for twin in several if twin != new)
            raise InputError(
                f"is one file with {other} where case or accents of names do not count",
                file=new,
                fix="rename it, or remove it",
            )
    if not _attributes_changed(where):
        return
    before, here = (tree.rewritten(files) for tree in (where.fork_point, where.head))
    for name, attribute in here.items():
        if before.get(name) != attribute:
            raise InputError(
                f"would be written into checkouts otherwise than it is judged, by {attribute}",
                file=name,
                fix=f"remove that from {_ATTRIBUTES}",
            )


def _attributes_changed(where: Sides) -> bool:
    trees = (where.fork_point, where.head)
    names = {name for tree in trees for name in _attribute_files(tree.survey())}
    return not all(same(where.fork_point, where.head, name) for name in names)


@functools.lru_cache(maxsize=4)
def _attribute_files(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name.endswith(_ATTRIBUTES))


@functools.lru_cache(maxsize=4)
def _twins(names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The names that some file systems take for one, by what they have in common."""
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        folded = _folded(name)
        found[folded] = (*found.get(folded, ()), name)
    return {folded: several for folded, several in found.items() if len(several) > 1}


def _folded(name: str) -> str:
    """As HFS+, APFS and NTFS compare names: by neither case nor how accents are composed."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
