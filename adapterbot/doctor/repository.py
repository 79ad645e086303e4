"""The checkout around us: configuration, suites, locks, Git LFS and the workflow's runner."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapterbot.attest.envelope import public_key
from adapterbot.changes.conventions import discover, unlisted
from adapterbot.changes.sides import config_of
from adapterbot.config import AdapterConfig, Config, Workflow
from adapterbot.doctor.finding import Finding, missing, note, wrong
from adapterbot.errors import AdapterbotError
from adapterbot.eval.suite import suite_files
from adapterbot.files.paths import join, normalise
from adapterbot.files.tree import WorkTree, lfs_oid, uses_lfs
from adapterbot.git.checkout import ignored_files
from adapterbot.jobs import jobs
from adapterbot.lock import load_training
from adapterbot.lock import loads as load_lock
from adapterbot.weights.peft_dir import CONFIG_NAME

_WEIGHTS = (".safetensors", ".bin")
_POINTER_BYTES = 1024
_SELF_HOSTED = "self-hosted"


@dataclass(frozen=True)
class Repository:
    """A checkout and the configuration that it has or implies; None when that is broken."""

    tree: WorkTree
    files: tuple[str, ...]
    config: Config | None
    problem: AdapterbotError | None

    @property
    def evaluates_here(self) -> bool:
        """Whether models run on this machine, and not on a server that the config names."""
        return self.config is None or self.config.server is None

    @property
    def signers(self) -> tuple[str | Workflow, ...]:
        """Every key and workflow that a policy trusts."""
        if self.config is None:
            return ()
        policies = [adapter.policy.attested_by for adapter in self.config.adapters]
        return tuple(dict.fromkeys(itertools.chain(self.config.attested_by, *policies)))

    @property
    def trusts_workflows(self) -> bool:
        """Whether a policy takes what a workflow signed, which takes Sigstore to verify."""
        return any(isinstance(signer, Workflow) for signer in self.signers)


def repository(root: Path) -> Repository:
    """Read the configuration of a checkout."""
    tree = WorkTree(root)
    files = tree.survey()
    try:
        found = config_of(tree) or discover(files)
    except AdapterbotError as error:
        return Repository(tree, files, None, error)
    return Repository(tree, files, found, None)


def examine(where: Repository, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Look at a checkout."""
    if where.problem is not None:
        empty = where.problem.file == "the repository"
        then = "; `adapterbot init` writes the rest" if empty else ""
        told = note if empty else wrong
        yield told("config", _told(where.problem), f"{where.problem.fix or 'correct it'}{then}")
    for adapter in where.config.adapters if where.config else ():
        yield from _adapter(where.tree, adapter)
    yield from _signers(where)
    others: Sequence[str] = ()
    try:
        others = unlisted(where.config, where.files) if where.config else ()
    except AdapterbotError as error:  # a folder whose name no report can hold
        yield wrong("not listed", _told(error), error.fix)
    if others:
        yield note(
            "not listed",
            f"{', '.join(others[:8])}: a change there is judged by the default policy",
            "list every adapter under `adapters:` in the configuration",
        )
    yield _lfs(where)
    yield from _runner(where.tree, environment)


def _adapter(tree: WorkTree, adapter: AdapterConfig) -> Iterator[Finding]:
    """Whether each file that the gate would read of an adapter can be read."""
    read: dict[str, Callable[[], object]] = {
        adapter.suite: lambda: suite_files(tree, adapter.suite),
        adapter.config: lambda: load_training(tree, adapter.config),
        adapter.lock: lambda: load_lock(tree.read(adapter.lock), adapter.lock),
    }
    yield Finding(what="adapter", found=adapter.path)
    folder = normalise(adapter.path)
    files = ignored_files(tree.root, folder)
    left_out = [join(folder, name) for name in files if "/" not in name and _is_of_adapter(name)]
    if left_out:
        yield wrong(
            "ignored",
            f"{left_out[0]} is in no commit: Git ignores it",
            "take it out of .gitignore; large weights belong in Git LFS",
        )
    for name, load in read.items():
        if name == adapter.lock and not tree.has(name):
            yield note(
                name,
                "not there",
                "without it the gate cannot say whether the run can be repeated: docs/lock.md",
            )
            continue
        try:
            load()
        except AdapterbotError as error:
            no_suite = name == adapter.suite and not tree.has(name)
            starter = "run `adapterbot init`, which makes a starter, or correct the path"
            yield wrong(name, _told(error), starter if no_suite else error.fix)
        else:
            yield Finding(what=name, found="can be read")


def _signers(where: Repository) -> Iterator[Finding]:
    """Whether what a policy trusts can be used to verify at all."""
    for signer in where.signers:
        try:
            if isinstance(signer, str):
                public_key(signer, file="adapterbot.yaml")
            elif signer.trust_config:
                where.tree.read(signer.trust_config)
        except AdapterbotError as error:
            yield wrong("attested_by", _told(error), error.fix)


def _is_of_adapter(name: str) -> bool:
    return name == CONFIG_NAME or name.endswith(_WEIGHTS[0])


def _told(error: AdapterbotError) -> str:
    """An error without its fix, which has a line of its own."""
    return ": ".join(part for part in (error.file, error.field, error.message) if part)[:500]


def _lfs(where: Repository) -> Finding:
    """Git LFS: whether this repository needs it, whether it is here, and whether files are."""
    needed = uses_lfs(where.tree, where.files)
    here = shutil.which("git-lfs") is not None
    pointers = [name for name in where.files if _is_pointer(where.tree.root / name)]
    if pointers:
        return wrong(
            "Git LFS",
            f"{pointers[0]} is a pointer, not the file (one of {len(pointers)})",
            ("" if here else "install git-lfs, then ")
            + "run `git lfs pull`; in a workflow, set `lfs: true` in actions/checkout",
        )
    if needed and not here:
        return missing(
            "Git LFS",
            "this repository uses it, and it is not installed",
            "install git-lfs, then run `git lfs install`",
        )
    use = "used here" if needed else "not used by this repository"
    return Finding(what="Git LFS", found=f"{'installed' if here else 'not installed'}, {use}")


def _is_pointer(path: Path) -> bool:
    if path.suffix not in _WEIGHTS or path.stat().st_size >= _POINTER_BYTES:
        return False
    return lfs_oid(path.read_bytes()) is not None


def _runner(tree: WorkTree, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Which labels the workflows ask for, and whether this is a job on such a runner."""
    on_runner = environment.get("GITHUB_ACTIONS") == "true"
    for job in jobs(tree.root):
        shown = [f"group {job.group}", *job.labels] if job.group else job.labels
        if not shown:
            continue
        found = f"{', '.join(shown)} ({job.workflow}: {job.name})"
        own = [label for label in job.labels if label != _SELF_HOSTED]
        if on_runner or _SELF_HOSTED not in job.labels:
            yield Finding(what="runs-on", found=found)
            continue
        yield note(
            "runs-on",
            found,
            f"a runner {'of this group ' if job.group else ''}must have all of these labels: "
            f"Settings → Actions → Runners, or `./config.sh --labels {','.join(own)}`",
        )
    if not on_runner:
        yield Finding(what="runner", found="not a job of GitHub Actions")
        return
    parts = (environment.get(f"RUNNER_{part}") for part in ("ENVIRONMENT", "NAME", "OS", "ARCH"))
    yield Finding(what="runner", found=", ".join(part for part in parts if part) or "unknown")
