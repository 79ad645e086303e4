"""What a head adds so that a checkout holds another adapter than Git's objects, which are judged:
names that some file systems take for one, and attributes that rewrite files."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from adapterbot.changes.mixtures import readable_experts
from adapterbot.changes.sides import Sides, same
from adapterbot.errors import InputError

_ATTRIBUTES = ".gitattributes"


def refuse_disguised(where: Sides, path: str) -> None:
    """Refuses an adapter if the head makes checkouts hold other bytes of it than the head itself.

    Args:
        path: of the adapter, normalised.

    Raises:
        InputError: it does, or a file of the adapter is a link.
    """
    for error in disguised(where, [path]).values():
        raise error


def disguised(where: Sides, paths: Iterable[str]) -> dict[str, InputError]:
    """Path → why, for each adapter that `refuse_disguised` refuses. Git is asked about all at once:
    there may be hundreds."""
    found: dict[str, InputError] = {}
    files: dict[str, tuple[str, ...]] = {}
    for path in paths:
        try:
            files[path] = _files(where, path)
        except InputError as error:
            found[path] = error
    twins = _twins(where.head.survey())
    rewritten = _rewritten(where, [name for names in files.values() for name in names])
    for path, names in files.items():
        for name in names:
            why = _twin(where, twins.get(_folded(name), ())) or rewritten.get(name)
            if why is not None:
                found.setdefault(path, why)
    return found


def _files(where: Sides, path: str) -> tuple[str, ...]:
    return tuple(
        name
        for part in (path, *readable_experts(where.head, path))
        for name in where.head.files(part)
        if part in (name, name.rpartition("/")[0])
    )


def _twin(where: Sides, several: Sequence[str]) -> InputError | None:
    new = next((name for name in several if not where.fork_point.has(name)), None)
    if new is None:
        return None
    other = next(name for name in several if name != new)
    return InputError(
        f"is one file with {other} where case or accents of names do not count",
        file=new,
        fix="rename it, or remove it",
    )


def _rewritten(where: Sides, names: Sequence[str]) -> Mapping[str, InputError]:
    if not names or not _attributes_changed(where):
        return {}
    before, here = (tree.rewritten(names) for tree in (where.fork_point, where.head))
    return {
        name: InputError(
            f"would be written into checkouts otherwise than it is judged, by {attribute}",
            file=name,
            fix=f"remove that from {_ATTRIBUTES}",
        )
        for name, attribute in here.items()
        if before.get(name) != attribute
    }


def _attributes_changed(where: Sides) -> bool:
    names = {*_attribute_files(where.fork_point.survey()), *_attribute_files(where.head.survey())}
    try:
        return not all(same(where.fork_point, where.head, name) for name in names)
    except InputError:  # a link in the place of one
        return True


# The same two surveys, of a hundred thousand names, are gone through for each adapter.
@lru_cache(maxsize=2)
def _attribute_files(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name.endswith(_ATTRIBUTES))


@lru_cache(maxsize=1)
def _twins(names: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    """Folded name → the names that are one by it, where they are several."""
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        folded = _folded(name)
        found[folded] = (*found.get(folded, ()), name)
    return {folded: several for folded, several in found.items() if len(several) > 1}


def _folded(name: str) -> str:
    """A name as HFS+, APFS and NTFS compare it: without case, and accents composed in one way."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
