"""What a command is about: the event, the checkout, and the trees that it compares."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adapterbot import context as contexts
from adapterbot.changes.sides import Sides, sides
from adapterbot.context import Context
from adapterbot.errors import InputError
from adapterbot.files import there
from adapterbot.files.tree import Tree, WorkTree
from adapterbot.git.checkout import ignored_names, is_sparse, repository_root
from adapterbot.git.commits import merge_bases, resolve_commit
from adapterbot.git.tree import GitTree

PULL_REQUEST_EVENTS = frozenset(
    {
        "pull_request",
        "pull_request_target",
        "merge_group",
        "check_run",
        "issue_comment",
        "workflow_run",
    }
)
# In full: a tag by the name of a branch would go before it.
DEFAULT_BASES = (
    "refs/remotes/origin/HEAD",
    "refs/remotes/origin/main",
    "refs/heads/main",
    "refs/remotes/origin/master",
    "refs/heads/master",
)


@dataclass(frozen=True)
class Place:
    """A checkout and what we are asked to do in it."""

    root: Path
    context: Context
    base: Tree
    head: Tree
    fork_point: Tree
    disputed: frozenset[str]
    ignored: frozenset[str]

    def sides(self, config_path: str | None = None) -> Sides:
        """The two trees, and the policy of the base.

        Raises:
            InputError: as `changes.sides.sides`.
        """
        return sides(
            self.base,
            self.head,
            config_path,
            self.fork_point,
            disputed=self.disputed,
            ignored=self.ignored,
        )


def read_event(environment: Mapping[str, str]) -> Context:
    """The Context of the event that started this run.

    Raises:
        InputError: there is no event, or its payload cannot be read.
    """
    path = environment.get("GITHUB_EVENT_PATH", "")
    name = environment.get("GITHUB_EVENT_NAME", "")
    fix = "run it in a GitHub workflow"
    if not path or not name:
        raise InputError("there is no event to work on", file="GITHUB_EVENT_PATH", fix=fix)
    try:
        payload = json.loads(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise InputError("does not exist", file=path, field="GITHUB_EVENT_PATH", fix=fix) from error
    except (ValueError, RecursionError) as error:
        raise InputError("is not JSON", file=path, field="GITHUB_EVENT_PATH", fix=fix) from error
    return contexts.from_event(name, payload, environment)


def bound(context: Context, base: str | None, head: str | None) -> Context:
    """The context of a comment's command, at the commits that it was bound to when it was read.

    Raises:
        InputError: they were not passed on, so that a later push could be run in their place.
    """
    for name, given in (("head", head), ("base", base)):
        if given is not None and not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", given):
            raise InputError(
                f"{given[:100]!r} is not a commit",
                field=f"input {name}",
                fix=f"pass the output `{name}-sha` of `command: answer`",
            )
    if head is None:
        raise InputError(
            "names no commit",
            file="workflow",
            field=f"on: {context.event}",
            fix="pass the outputs `head-sha` and `base-sha` of `command: answer`",
        )
    return context.model_copy(update={"head_sha": head, "base_sha": base})


def by_hand(root: Path, base: str | None, head: str | None) -> Place:
    """A comparison that a person asked for; without a head, the files as they lie on disk.

    Raises:
        InputError: a ref does not exist, or there is no base to compare with.
    """
    base_sha = resolve_commit(root, base, field="--base") if base else _default_base(root)
    head_sha = resolve_commit(root, head, field="--head") if head else None
    return _place(root, contexts.by_hand(base_sha, head_sha), base_sha, head_sha)


def _default_base(root: Path) -> str:
    for ref in DEFAULT_BASES:
        try:
            return resolve_commit(root, ref)
        except InputError:
            continue
    raise InputError(
        "there is no branch to compare with", field="--base", fix="name one, e.g. --base main"
    )


def from_context(root: Path, context: Context, base: str | None, head: str | None) -> Place:
    """The two commits of a pull request or merge group.

    Args:
        base: a ref that takes the place of the event's base.
        head: likewise of its head.

    Raises:
        InputError: one of them is not in this checkout and cannot be fetched.
    """
    left, right = base or context.base_sha, head or context.head_sha
    if left is None or right is None:
        raise InputError(
            "names no two commits to compare",
            file="workflow",
            field=f"on: {context.event}",
            fix="use `on: pull_request` or `on: merge_group`",
        )
    base_sha, head_sha = resolve_commit(root, left), resolve_commit(root, right)
    bound_to = context.model_copy(update={"base_sha": base_sha, "head_sha": head_sha})
    return _place(root, bound_to, base_sha, head_sha)


def _place(root: Path, context: Context, base_sha: str, head_sha: str | None) -> Place:
    base = GitTree(root, base_sha)
    start, disputed = parted(root, base, head_sha or "HEAD")
    return Place(
        root=root,
        context=context,
        base=base,
        head=GitTree(root, head_sha) if head_sha else _on_disk(root),
        fork_point=start,
        disputed=disputed,
        ignored=frozenset() if head_sha else ignored_names(root),
    )


def parted(root: Path, base: GitTree, head: str) -> tuple[GitTree, frozenset[str]]:
    """Where a commit and its base went separate ways (the base itself if they share nothing), and
    the files that are disputed because that is several commits.

    Raises:
        InputError: this clone is shallow, and the remote does not tell the rest.
    """
    found = merge_bases(root, base.commit, head)
    if len(found) > 1:
        return base.parted_at([GitTree(root, commit) for commit in found])
    return GitTree(root, found[0]) if found and found != (base.commit,) else base, frozenset()


def _on_disk(root: Path) -> WorkTree:
    # "Does not exist" would have people commit what they have committed.
    return WorkTree(root, "this sparse checkout") if is_sparse(root) else WorkTree(root)


def checkout() -> Path:
    """The Git checkout around the current directory.

    Raises:
        InputError: there is none.
    """
    return repository_root(Path.cwd())


def named_file(path: Path, within: Path) -> tuple[WorkTree, str]:
    """A file that somebody named by hand, and the tree that it lies in with what it names.

    Args:
        within: that tree, unless the file is elsewhere: then it is the file's own folder.
    """
    # `..` would be taken for a way out of the tree, also where it leads back or is meant.
    file = Path(os.path.normpath(Path.cwd() / path))
    if not file.is_relative_to(within):  # by name; perhaps it is through a link on the way there
        file = there.real(file.parent) / file.name
    root = within if file.is_relative_to(within) else file.parent
    return WorkTree(root), file.relative_to(root).as_posix()
