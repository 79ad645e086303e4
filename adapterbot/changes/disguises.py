"""What the head adds so that people's checkouts hold another adapter than Git's objects do, which
are what is judged: files whose names are one on some machines, and attributes that rewrite them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

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
    for error in disguised(where, [path]).values():
        raise error


def disguised(where: Sides, paths: Iterable[str]) -> dict[str, InputError]:
    """Which of these adapters `refuse_disguised` refuses, and why. Git is asked about all of them
    at once: a repository may hold hundreds, and a hundred thousand other files."""
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
    names = {
        name
        for tree in (where.fork_point, where.head)
        for name in tree.survey()
        if name.endswith(_ATTRIBUTES)
    }
    try:
        return not all(same(where.fork_point, where.head, name) for name in names)
    except InputError:  # a link in the place of one
        return True


def _twins(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
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
