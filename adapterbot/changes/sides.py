"""The two sides of a comparison: their trees, and the configuration that the base ref decides by.

Which adapters are judged is `selection`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from adapterbot.config import CONFIG_FILES, Config, Signer, load
from adapterbot.files.tree import Tree


@dataclass(frozen=True)
class Sides:
    """The two trees of a comparison, where they went separate ways, and the policy of the first.

    A branch behind its base did not make the base's newer changes undone: what the head changes is
    seen from `fork_point`, what it is compared with and judged by is at the tip of the base.

    Attributes:
        disputed: files that differ between the merge bases, where there are several (each side
            merged what the other had at the time): only a merge tells which one it starts from.
        ignored: what Git ignores, where the head is the files on disk: files, and folders as
            `folder/`. What a training run left there is no change.
    """

    base: Tree
    head: Tree
    fork_point: Tree
    config: Config | None
    notes: tuple[str, ...] = ()
    config_names: tuple[str, ...] = CONFIG_FILES
    disputed: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()

    @property
    def allowed_base(self) -> str | None:
        """The directory outside the repository that the base ref lets a base model be in."""
        return self.config.base_model if self.config else None

    @property
    def signers(self) -> tuple[Signer, ...]:
        """Who must sign for an adapter whose own policy names nobody."""
        return self.config.attested_by if self.config else ()


def sides(
    base: Tree,
    head: Tree,
    config_path: str | None = None,
    fork_point: Tree | None = None,
    *,
    disputed: frozenset[str] = frozenset(),
    ignored: frozenset[str] = frozenset(),
) -> Sides:
    """Read the policy from the base ref, and note what the head would change about it.

    Args:
        config_path: where adapterbot.yaml is, when it is in neither of its usual places.
        fork_point: where the two went separate ways; the base itself when that is not known.
        disputed, ignored: as `Sides` has them.

    Raises:
        InputError: the config at the base ref is broken, or the one that was named is not there.
    """
    names = (config_path,) if config_path else CONFIG_FILES
    config = config_of(base, config_path)
    start = fork_point or base
    notes = [
        f"{name} is {how_changed(start, head, name)} here; "
        + (
            "the version on the base branch was used"
            if config
            else "the base branch has none, so the defaults were used"
        )
        for name in names
        if not same(start, head, name)
    ]
    return Sides(base, head, start, config, tuple(notes), names, disputed, ignored)


def config_of(tree: Tree, path: str | None = None) -> Config | None:
    """A tree's adapterbot.yaml, or None where it has none.

    Args:
        path: where it is, when it is in neither of its usual places.

    Raises:
        InputError: it is broken, or the one that was named is not there.
    """
    found = path or next((name for name in CONFIG_FILES if tree.has(name)), None)
    return load(tree.read(found), found) if found else None


def same(one: Tree, other: Tree, path: str, moved: str | None = None) -> bool:
    """Whether a file has the same content in both trees, or is in neither. For two commits Git's
    own object ids say so, and nothing is read.

    Args:
        moved: where it lies in the other, if not at `path`.

    Raises:
        InputError: as `Tree.sha256`.
    """
    now = path if moved is None else moved
    if not (one.has(path) and other.has(now)):
        return one.has(path) == other.has(now)
    known = one.identity(path)
    if known is not None and known == other.identity(now):
        return True
    return one.sha256(path) == other.sha256(now)


def how_changed(base: Tree, head: Tree, path: str) -> str:
    """One word for what the head does to a file."""
    if not base.has(path):
        return "added"
    return "changed" if head.has(path) else "removed"
