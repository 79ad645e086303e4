"""The lock against what is there now: which part drifted. Why it did is for `explain`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from posixpath import normpath
from typing import TYPE_CHECKING, Literal

from adapterbot.files.paths import join
from adapterbot.files.tree import Tree, WorkTree
from adapterbot.lock import sidecar as sidecars
from adapterbot.lock.digest_cache import DigestCache
from adapterbot.lock.explain import Entry, Then, adapter_moved
from adapterbot.lock.hashing import combined
from adapterbot.lock.pinned import (
    ADAPTER_CONFIG,
    NOTHING_GIVEN,
    Given,
    Pinned,
    adapter_files,
    measure,
)
from adapterbot.lock.schema import MAX_LOCK_BYTES, Lock, loads
from adapterbot.lock.sidecar import Sidecar
from adapterbot.lock.training import (
    TrainingConfig,
    as_recorded,
    changed_settings,
    settings_digest,
)

if TYPE_CHECKING:
    from adapterbot.records import LockResult

_MAX_LINE = 1000
_MAX_ENTRIES = 50


@dataclass(frozen=True)
class Part:
    """As `records.LockPart`."""

    part: str
    locked: str
    now: str
    ok: bool
    explanation: str = ""
    file: str | None = None
    line: int | None = None
    advisory: bool = False
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Check:
    """The outcome, in the fields of `records.LockResult`, which costs pydantic to import."""

    status: Literal["ok", "drift", "missing"]
    path: str
    parts: tuple[Part, ...] = ()
    note: str = ""

    def record(self) -> LockResult:
        """As the report holds it."""
        from adapterbot.records import LockResult

        return LockResult.model_validate(asdict(self))


def check(
    tree: Tree | Path | str,
    lock_path: str,
    config: str,
    *,
    before: Tree | None = None,
    allowed_base: str | None = None,
    given: Given = NOTHING_GIVEN,
    adapter: str | None = None,
    cache: DigestCache | None = None,
) -> Check:
    """Compare the lock with the files beside it.

    Args:
        tree: the files, or the directory that they are in.
        lock_path, config: soup.lock and soup.yaml, seen from there.
        before: the tree that the pull request starts from; helps to tell what moved.
        given: hashes to compare with instead of the files'.
        adapter: the one adapter directory to look at; all that were locked when None.

    Raises:
        InputError: the lock or the config is broken. Drift is a result, not an error.
        OurFailure: the Hub did not answer.
    """
    if isinstance(tree, str | Path):
        tree = WorkTree(Path(tree))
    if not tree.has(lock_path):
        known = before is not None and before.has(lock_path)
        return Check(
            # Taking the lock away, or a branch from before it, must not be a way around it.
            status="drift" if known else "missing",
            path=lock_path,
            note=f"{lock_path} is not here, but {before.label} has it" if before and known else "",
        )
    lock = loads(tree.read(lock_path, limit=MAX_LOCK_BYTES), lock_path)
    now = measure(tree, config, allowed_base=allowed_base, given=given, cache=cache)
    side = sidecars.read(tree, lock_path, lock)
    then = Then(tree, before, lock_path, lock, config, allowed_base, side, cache)
    parts = [
        *_content(lock, now, config, then),
        *_environment(lock, now, then),
        *_adapters(now, then, adapter),
    ]
    notes = []
    if now.env_hash is None and not any(part.part == "env_hash" for part in parts):
        notes.append(f"environment not checked: {now.env_path} does not exist")
    if now.training and not any(part.part == "adapter" for part in parts):
        notes.append(f"weights not checked: {_record(lock_path)} {_unrecorded(side, adapter)}")
    if side and side.settings and now.training:
        advice = _settings(side, now.training)
        if not advice.ok:
            notes.append(f"training settings moved since the lock: {advice.explanation}")
        parts.append(advice)
    return Check(
        status="ok" if all(part.ok or part.advisory for part in parts) else "drift",
        path=lock_path,
        parts=tuple(parts),
        note=_clip("; ".join(notes)),
    )


def _clip(text: str) -> str:
    # A file's name may be bytes that are no text.
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _MAX_LINE else f"{text[: _MAX_LINE - 1]}…"


def _content(lock: Lock, now: Pinned, config: str, then: Then) -> Iterator[Part]:
    base_line = now.training.base_line if now.training else None
    file = config if now.training else None
    # A folder may be written in more ways than one.
    same = normpath(lock.base_model) == normpath(now.base_model)
    yield Part(
        "base_model",
        lock.base_model,
        now.base_model,
        same,
        "" if same else "another base model is named",
        file,
        base_line,
    )
    moved = partial(then.base_moved, now)
    pinned, found = lock.base_model_sha, now.base_model_sha
    yield _compared("base_model_sha", pinned, found, moved, file, base_line)
    same = then.same_data(now)
    why, entries = ("", ()) if same else then.data_moved(now)
    line = now.training.data_line if now.training else None
    yield Part(
        "dataset_sha",
        lock.dataset_sha,
        now.dataset_sha,
        same,
        _clip(why),
        file,
        entries[0].line if entries else line,
        # A single one is the part itself.
        entries=tuple(Entry(e.line, _clip(e.explanation)) for e in entries[:_MAX_ENTRIES])
        if len(entries) > 1
        else (),
    )


def _environment(lock: Lock, now: Pinned, then: Then) -> Iterator[Part]:
    before = then.before
    removed = now.env_hash is None and before is not None and before.has(now.env_path)
    if now.env_hash is None and not removed:
        return
    moved = partial(then.environment_moved, now)
    yield _compared("env_hash", lock.env_hash, now.env_hash or "not here", moved, now.env_path, 1)


def _adapters(now: Pinned, then: Then, only: str | None) -> Iterator[Part]:
    """Whether the weights are the ones that were locked."""
    side, before = then.sidecar, then.before
    locked = {join(now.directory, path): files for path, files in _recorded(side).items()}
    for path, files in locked.items():
        if only not in (None, path):
            continue
        found = adapter_files(then.tree, path, then.cache)
        moved = partial(adapter_moved, then.tree, path, files, found)
        place = join(path, ADAPTER_CONFIG)
        yield _compared("adapter", combined(files), combined(found), moved, place, 1)
    record = _record(then.lock_path)
    if only is not None and only not in locked and before is not None and before.has(record):
        # Nor must taking this record away, or letting it go stale, be a way around it.
        old = sidecars.loads(before.read(record), record)
        if only in {join(now.directory, path) for path in old.adapters}:
            yield Part(
                "adapter",
                "recorded",
                "not recorded",
                ok=False,
                explanation=f"{record} {_unrecorded(side, only)}, so the weights cannot be told "
                "from others; run `adapterbot lock write` again",
                file=then.lock_path,
                line=1,
            )


def _compared(
    part: str, pinned: str, found: str, moved: Callable[[], str], file: str | None, line: int | None
) -> Part:
    """Two digests; `moved` says what moved, where they differ."""
    same = pinned == found
    return Part(part, pinned, found, same, "" if same else _clip(moved()), file, line)


def _record(lock_path: str) -> str:
    return f"{sidecars.folder(lock_path)}/{sidecars.FILE}"


def _unrecorded(side: Sidecar | None, adapter: str | None) -> str:
    return f"does not record {adapter or 'any'}" if side else "does not belong to this lock"


def other_weights(tree: Tree, lock_path: str, config: str, adapter: str) -> str | None:
    """Why the weights of an adapter are not those that were recorded with its lock; None where they
    are, or where nobody recorded any. Nothing else is looked at. A record of other adapters alone
    says that the lock is theirs; mixtures and banks are never recorded.

    Raises:
        InputError: the lock, or what is beside it, is broken.
    """
    lock = loads(tree.read(lock_path, limit=MAX_LOCK_BYTES), lock_path)
    side = sidecars.read(tree, lock_path, lock)
    folder = config.rpartition("/")[0]
    locked = {join(folder, path): files for path, files in _recorded(side).items()}
    if adapter in locked:
        found = adapter_files(tree, adapter)
        same = locked[adapter] == found
        return None if same else adapter_moved(tree, adapter, locked[adapter], found)
    if locked and tree.has(join(adapter, ADAPTER_CONFIG)):
        names = ", ".join(sorted(locked)[:4])
        return f"{_record(lock_path)} records {names} alone, so this is not known to be its lock"
    return None


def _recorded(side: Sidecar | None) -> dict[str, dict[str, str]]:
    return {path: dict(files) for path, files in side.adapters.items()} if side else {}


def _settings(side: Sidecar, training: TrainingConfig) -> Part:
    now = as_recorded(training.settings, side.settings)
    changes: Sequence[str] = changed_settings(side.settings, now)
    lines = [training.setting_lines[name] for name in now if side.settings.get(name) != now[name]]
    more = f" and {len(changes) - 8} more" if len(changes) > 8 else ""
    return Part(
        "training_config",
        settings_digest(side.settings),
        settings_digest(now),
        not changes,
        _clip(", ".join(changes[:8]) + more),
        training.path,
        lines[0] if lines else 1,
        advisory=True,
    )
