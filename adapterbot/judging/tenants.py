"""A pull request that changes a bank: which users it changes, and what that does to each of them.

Every changed user, up to a sample, is one more adapter to the evaluation: the LoRA that equals its
row, before and after. The suite's tasks are asked of each, and each pair of user and task is a
metric of its own, so that all of them lie in one table and share one family of tests.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adapterbot import delta
from adapterbot.bank.portable import Portable, read_portable
from adapterbot.changes.sides import Sides
from adapterbot.config import AdapterConfig
from adapterbot.errors import InputError
from adapterbot.eval.suite import Task
from adapterbot.files.tree import Tree
from adapterbot.importing import extras
from adapterbot.judging.early import Measured
from adapterbot.probing.evaluator import Evaluator, corpora, evaluate_both
from adapterbot.records import AdapterRef, TaskResult
from adapterbot.verdict import MetricPolicy, task_of
from adapterbot.weights.peft_dir import AdapterFiles, read_adapter_dir
from adapterbot.weights.trained_on import check_base, names_another

if TYPE_CHECKING:
    from adapterbot.bank.source import PortableSource

MOST = 16
_NAME = 60
_TASK = 100


@dataclass(frozen=True)
class Change:
    """What a head does to a bank.

    Attributes:
        before: the bank at the base ref; None where it is new.
        after: the bank at the head.
        users: whose answers are compared.
        baseline, candidate: how the report names the two.
        notes: what a reader must know of the choice.
    """

    before: Portable | None
    after: Portable
    users: tuple[str, ...]
    baseline: AdapterRef
    candidate: AdapterRef
    notes: tuple[str, ...]

    def policies(
        self, rules: Mapping[str, MetricPolicy], tasks: Collection[str]
    ) -> dict[str, MetricPolicy]:
        """The policy of every user's metrics: each that of its task, or of its task's slice.

        Args:
            rules: of the suite, as `verdict.policies` gives them.
            tasks: the names of the suite's tasks.
        """
        found = {}
        for name, rule in rules.items():
            task = name if name in tasks else task_of(name, tasks) or name
            for user in self.users:
                found[metric(task, user) + name[len(task) :]] = rule
        return found

    def measure(
        self,
        evaluator: Evaluator,
        tasks: Sequence[Task],
        base: str | Path,
        progress: Callable[[int, int], None],
    ) -> Measured:
        """All tasks asked of every chosen user, before and after.

        Raises:
            InputError: a row cannot be used, or does not fit the base model.
            OurFailure: what makes adapters of rows is not installed.
        """
        with extras("bank,eval", "banks"):
            from adapterbot.bank.source import PortableSource
        old = PortableSource(self.before) if self.before else None
        new = PortableSource(self.after)
        known = set(self.before.users) if self.before else set()
        asked: list[Task] = []
        before: list[TaskResult] = []
        after: list[TaskResult] = []
        total = 2 * len(self.users) * sum(len(task.samples) for task in tasks)
        for number, user in enumerate(self.users):
            done = total * number // len(self.users)
            # One user's adapters at a time: at a high rank a LoRA is large.
            with tempfile.TemporaryDirectory(prefix="adapterbot-bank-") as folder:
                left, right = evaluate_both(
                    evaluator,
                    tasks,
                    _adapter(old, user, Path(folder, "before"), base) if user in known else None,
                    _adapter(new, user, Path(folder, "after"), base),
                    _from(progress, done, total),
                )
            for task, one, other in zip(tasks, left, right, strict=True):
                name = metric(task.name, user)
                asked.append(task.model_copy(update={"name": name}))
                before.append(one.model_copy(update={"task": name}))
                after.append(other.model_copy(update={"task": name}))
        compare = partial(delta.compare_all, before, after, corpora=corpora(asked))
        return Measured(tuple(asked), tuple(before), tuple(after), compare)


def metric(task: str, user: str) -> str:
    """What a user's metric is called. Names that are cut short stay distinct, and no user name can
    pass for a slice of another user's metric."""
    if user.endswith("]"):
        user = f"{user}… {_short_digest(user)}"
    return f"{_cut(task, _TASK)} · {_cut(user, _NAME)}"


def _cut(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 10]}… {_short_digest(name)}"


def _short_digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def change(where: Sides, adapter: AdapterConfig, base: str | Path) -> Change:
    """Which users of a bank the head changes.

    Args:
        base: the base model's directory, or its name on the Hub.

    Raises:
        InputError: one of the two files is no exported bank, is broken, or is of another base.
    """
    after = _opened(where.head, adapter.path, "", base)
    before = None
    if adapter.baseline == "base-ref" and where.base.has(adapter.path):
        before = _opened(where.base, adapter.path, "baseline ", base)
    changed = changed_users(before, after)
    users = sample(changed or list(after.users), _seed(where.base, adapter))
    return Change(
        before=before,
        after=after,
        users=users,
        baseline=_ref(where.base, adapter) if before else AdapterRef(label="base model"),
        candidate=_ref(where.head, adapter),
        notes=_notes(before, after, changed, users, adapter),
    )


def changed_users(before: Portable | None, after: Portable) -> list[str]:
    """Users whose row is new or says something else, in order."""
    if before is None or not before.manifest.same_rows(after.manifest):
        return list(after.users)
    place = {user: index for index, user in enumerate(before.users)}
    both = [(at, place[user]) for at, user in enumerate(after.users) if user in place]
    if before.manifest.dtype == after.manifest.dtype:
        here, there = (np.array([pair[side] for pair in both], np.int64) for side in (0, 1))
        same = (after.raw[here] == before.raw[there]).all(axis=1)
        kept = {after.users[at] for at in here[same]}
    else:
        new, old = after.rows([at for at, _ in both]), before.rows([at for _, at in both])
        equal = (new.values == old.values).all(1) & (new.choices == old.choices).all(1)
        kept = {after.users[at] for (at, _), same in zip(both, equal, strict=True) if same}
    return [user for user in after.users if user not in kept]


def sample(users: Sequence[str], seed: str) -> tuple[str, ...]:
    """At most so many users, chosen by the base ref: nobody can name users so that a broken one is
    left out."""
    drawn = sorted(users, key=lambda user: hashlib.sha256(f"{seed}\0{user}".encode()).digest())
    return tuple(sorted(drawn[:MOST]))


def _seed(tree: Tree, adapter: AdapterConfig) -> str:
    """The digest of the bank at the base ref, or else of its suite."""
    return next((tree.sha256(p) for p in (adapter.path, adapter.suite) if tree.has(p)), "")


def _opened(tree: Tree, path: str, side: str, base: str | Path) -> Portable:
    shown = f"{side}{path} @ {tree.label}"
    bank = read_portable(tree.on_disk(path), shown=shown)
    own = bank.manifest.base_model
    if not Path(base).is_dir() and names_another(own, str(base)):
        raise InputError(
            f"is of {own!r}, but the base model is {str(base)!r}",
            file=shown,
            field="base_model",
            fix="use it with its own base; if both are one model, import it into a bank with"
            f" --base {base}, and export that",
        )
    return bank


def _ref(tree: Tree, adapter: AdapterConfig) -> AdapterRef:
    label = f"{adapter.path[-150:]} @ {tree.label}"
    return AdapterRef(label=label, path=adapter.path, digest=tree.sha256(adapter.path))


def _notes(
    before: Portable | None,
    after: Portable,
    changed: Sequence[str],
    users: Sequence[str],
    adapter: AdapterConfig,
) -> tuple[str, ...]:
    known = set(before.users) if before else set()
    new = len([user for user in changed if user not in known])
    gone = len(known - set(after.users))
    notes = [f"{len(changed):,} of {len(after.users):,} users changed, {new:,} of them new"]
    if gone:
        notes.append(f"{gone:,} {'user is' if gone == 1 else 'users are'} removed")
    if len(users) < len(changed):
        notes.append(f"{len(users)} of the changed users were evaluated, chosen by the base branch")
    if new:
        notes.append("a new user is compared with the bare base model")
    if before and not before.manifest.same_rows(after.manifest):
        notes.append("the bank's modules, rank or projection changed, so every user did")
    if adapter.policy.sequential:
        notes.append("users of a bank are asked every sample, sequential or not")
    return tuple(notes)


def _from(
    progress: Callable[[int, int], None], done: int, total: int
) -> Callable[[int, int], None]:
    return lambda so_far, _: progress(done + so_far, total)


def _adapter(
    source: PortableSource | None, user: str, place: Path, base: str | Path
) -> AdapterFiles:
    from adapterbot.bank.peft_write import write_lora

    assert source is not None  # noqa: S101 a known user is one of the bank before
    write_lora(source.manifest, source.shared(), source.gather([user]), place)
    files = read_adapter_dir(place, shown=f"the row of {user[:80]}")
    check_base(files, base)
    return files
