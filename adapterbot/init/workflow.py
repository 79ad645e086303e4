"""The workflow that runs the gate: ours as it is, with the user's runner, checkout and action."""

from __future__ import annotations

import re
from importlib.resources import files

from adapterbot.errors import InputError

ACTION = "org/adapter-action@v1"
RUNS_ON = ("self-hosted", "gpu")
_ACTION = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(/[\w./-]+)?@(?P<ref>[\w./-]+)")
_LABEL = re.compile(r"[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CHECKOUT = "with: {fetch-depth: 0, persist-credentials: false}"


def action_parts(action: str) -> tuple[str, str]:
    """Repository and ref of `owner/name@ref`.

    Raises:
        InputError: it is nothing of the kind.
    """
    match = _ACTION.fullmatch(action)
    if match is None:
        raise InputError(
            f"{action!r} is not an action",
            field="--action",
            fix="write owner/name@ref, the ref a commit or a tag",
        )
    return match["repository"], match["ref"]


def is_pinned(action: str) -> bool:
    """Whether an action is named by commit, which nobody can move."""
    return _COMMIT.fullmatch(action_parts(action)[1]) is not None


def workflow(*, runs_on: tuple[str, ...], action: str, was: str, lfs: bool) -> str:
    """The workflow to write to `.github/workflows/`.

    Args:
        runs_on: labels of the runner.
        action: `owner/name@ref`.
        was: the tag that `action`'s commit was found under, for the reader; "" for none.
        lfs: whether adapters are kept in Git LFS.

    Raises:
        InputError: a label or the action is malformed.
    """
    action_parts(action)
    for label in runs_on:
        if not _LABEL.fullmatch(label):
            raise InputError(
                f"{label!r} is not a runner's label",
                field="--runs-on",
                fix="write letters, digits, dots and dashes, with commas between labels",
            )
    if not runs_on:
        raise InputError("names no label", field="--runs-on", fix="write ubuntu-latest, say")
    labels = runs_on[0] if len(runs_on) == 1 else f"[{', '.join(runs_on)}]"
    text = (files("adapterbot") / "templates" / "adapter-gate.yml").read_text(encoding="utf-8")
    changes = {
        f"uses: {ACTION}": f"uses: {action}" + (f" # {was}" if was else ""),
        f"runs-on: [{', '.join(RUNS_ON)}]": f"runs-on: {labels}",
    }
    if lfs:
        changes[_CHECKOUT] = _CHECKOUT.replace("{", "{lfs: true, ")
    for old, new in changes.items():
        if text.count(old) != 1:
            raise AssertionError(f"the workflow has {old!r} {text.count(old)} times")
        text = text.replace(old, new)
    return text
