"""What is evaluated on either side of a comparison: an adapter, a mixture, or the bare base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapterbot.changes.conventions import MIXTURE_CONFIG
from adapterbot.changes.sides import Sides
from adapterbot.config import AdapterConfig
from adapterbot.errors import InputError
from adapterbot.eval.questions import Composite, Subject, digest_of, parts
from adapterbot.files.paths import normalise
from adapterbot.files.tree import Tree
from adapterbot.mole.artifact import SOUP_MANIFEST, is_mixture, read_mixture, read_mixture_dir
from adapterbot.records import AdapterRef
from adapterbot.weights.peft_dir import CONFIG_NAME, AdapterFiles, adapter_digest, read_adapter_dir
from adapterbot.weights.trained_on import base_at, check_base, said_base

MAX_SCAN_NOTES = 4


@dataclass(frozen=True)
class Side:
    """One side; `files` is None for the bare base model."""

    ref: AdapterRef
    files: Subject | None

    @property
    def mixture(self) -> Composite | None:
        """What is evaluated, if it is a mixture."""
        return None if isinstance(self.files, AdapterFiles) else self.files


BARE = Side(AdapterRef(label="base model"), None)


def read(tree: Tree, path: str, base: str | Path, *, side: str = "") -> Side:
    """The adapter or mixture at `path`, checked without loading a tensor.

    Args:
        side: what errors call this side, where both have the same path.

    Raises:
        InputError: it is not there, broken, or for another base.
    """
    if not tree.has(path):
        on_purpose = "" if side else "; to remove it, delete its entry in adapterbot.yaml, too"
        raise InputError(
            f"does not exist in {tree.label}",
            file=path,
            fix=f"commit the adapter directory, or correct its path{on_purpose}",
        )
    shown = f"{side} {path} @ {tree.label}" if side else path
    files: Subject
    if any(tree.has(f"{path}/{name}") for name in (MIXTURE_CONFIG, SOUP_MANIFEST)):
        files = read_mixture(tree, path, shown=shown)
    else:
        files = read_adapter_dir(tree.on_disk(path), shown=shown)
    return _side(files, f"{path[-150:]} @ {tree.label}", path, base)


def read_local(path: str, base: str | Path) -> Side:
    """As `read`, for a directory of this machine that somebody named by hand."""
    files: Subject = read_mixture_dir(path) if is_mixture(path) else read_adapter_dir(path)
    return _side(files, path[-200:], path, base)


def _side(files: Subject, label: str, path: str, base: str | Path) -> Side:
    for part in parts(files):
        check_base(part, base)
    return Side(AdapterRef(label=label, path=path, digest=digest_of(files)), files)


def digest_at(tree: Tree, path: str) -> str:
    """The digest by which a report names what it judged: an adapter, a mixture or an exported bank.

    Raises:
        InputError: there is none, or a file of it is broken.
    """
    if tree.files(path) == (path,):
        return tree.sha256(path)
    directory = tree.on_disk(path)
    return (
        digest_of(read_mixture(tree, path)) if is_mixture(directory) else adapter_digest(directory)
    )


def baseline(
    where: Sides, adapter: AdapterConfig, base: str | Path
) -> tuple[Side, tuple[str, ...]]:
    """What an adapter is compared with, and what a reader must know of it.

    Raises:
        InputError: as `read`.
    """
    if adapter.baseline == "none":
        return BARE, ()
    if adapter.baseline != "base-ref":
        path = normalise(adapter.baseline, field="baseline")
        return read(where.base, path, base, side="baseline"), ()
    if not where.base.has(adapter.path):
        note = f"{adapter.path} is new here, so it is compared with the bare base model"
        return BARE, (note,)
    return read(where.base, adapter.path, base, side="baseline"), ()


def said_notes(baseline: Side, candidate: Side) -> tuple[str, ...]:
    """A note where the candidate's options name another base model, or revision, than the
    baseline's: whoever loads it by its folder alone gets that one, which was not evaluated."""
    before = {said_base([part.config]) for part in parts(baseline.files)}
    here = {said_base([part.config]) for part in parts(candidate.files)}
    if not before or here <= before:
        return ()
    name, revision = min(here - before, key=str)
    shown = base_at(name or "none", revision)[:200]
    return (f"{CONFIG_NAME} names another base model than before, {shown}: it was not evaluated",)


def scan_notes(files: Subject | None) -> tuple[str, ...]:
    """What a cheap look at the weights finds odd, before the samples are paid for.

    Raises:
        InputError: the weights cannot be used.
    """
    if files is None:
        return ()
    try:
        from adapterbot.weights.inspection import scan
    except ImportError:  # a server evaluates, and this machine has no torch
        return ("the weights were not scanned: torch is not installed where the gate runs",)
    shown: list[str] = []
    for part in parts(files):
        for finding in scan(part).findings:
            if finding.kind == "not finite":
                raise InputError(
                    "holds NaN or infinity",
                    file=part.weights_shown,
                    field=finding.where,
                    fix=finding.fix,
                )
            place = finding.where if part is files else f"{part.shown}: {finding.where}"
            shown.append(f"{finding.kind}: {place}: {finding.message}")
    more = len(shown) - MAX_SCAN_NOTES
    odd = [f"{more} more of its modules look odd: `adapterbot scan`"] if more > 0 else []
    return (*shown[:MAX_SCAN_NOTES], *odd)
