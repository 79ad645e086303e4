"""`adapterbot init`: what it finds out, shows and writes. Asking is the command line's."""

from __future__ import annotations

import difflib
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from adapterbot import atomic, beside
from adapterbot.commands.place import checkout
from adapterbot.context import server_url
from adapterbot.errors import OurFailure
from adapterbot.gitobjects import git, git_as
from adapterbot.init import WORKFLOW, Planned, Wanted, plan
from adapterbot.init.workflow import action_parts, is_pinned
from adapterbot.paths import is_hidden
from adapterbot.tree import WorkTree

_SECONDS = 15
_SHOWN_BYTES = 256 * 1024


def pinned(action: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """An action by commit, and the tag it was named by; as it is when GitHub does not answer.

    Raises:
        InputError: it is no `owner/name@ref`.
    """
    repository, ref = action_parts(action)
    if is_pinned(action):
        return action, ""
    url, tag = f"{server_url(environment)}/{repository}", f"refs/tags/{ref}"
    quiet = {**beside.programs_environment(), "GIT_TERMINAL_PROMPT": "0"}
    # An annotated tag is an object of its own; `^{}` is the commit that it is about.
    asked = ("ls-remote", url, tag, f"{tag}^{{}}")
    try:
        listed = git_as(Path.cwd(), quiet, *asked, seconds=_SECONDS).decode(errors="replace")
    except OurFailure:
        return action, ""
    lines = (line.partition("\t") for line in listed.splitlines())
    found = {name: commit for commit, _, name in lines}
    commit = found.get(f"{tag}^{{}}") or found.get(tag)
    return (action.replace(f"@{ref}", f"@{commit}"), ref) if commit else (action, "")


def prepare(wanted: Wanted) -> tuple[Path, Planned]:
    """The checkout, and what would be written into it.

    Raises:
        InputError: this is no checkout, it holds no adapter, or an option is malformed.
    """
    root = checkout()
    listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = [
        name
        for name in sorted(set(os.fsdecode(listed).split("\0")))
        if name
        and not any(is_hidden(folder) for folder in name.split("/")[:-1])
        and (root / name).is_file()
        and not (root / name).is_symlink()
    ]
    planned = plan(WorkTree(root), names, wanted)
    if WORKFLOW in planned.files and not is_pinned(wanted.action):
        planned.notes.append(
            f"{wanted.action} could not be looked up from here: in the workflow, replace its tag "
            "by the commit of its release"
        )
    return root, planned


def write(root: Path, planned: Planned) -> None:
    """Write every file, or none.

    Raises:
        AdapterbotError: one of them cannot be written.
    """
    atomic.write_all({root / name: content for name, content in planned.files.items()})


def differences(root: Path, planned: Planned) -> Iterator[str]:
    """What `write` would change, as one diff that `git apply` takes; of large files only how many
    lines."""
    for name, content in sorted(planned.files.items()):
        path = root / name
        before = path.read_bytes() if path.is_file() else b""
        if max(len(before), len(content)) > _SHOWN_BYTES:
            yield f"# {name}: {len(before.splitlines())} lines → {len(content.splitlines())}\n"
            continue
        old, new = _lines(before), _lines(content)
        was = f"a/{name}" if before else "/dev/null"
        for line in difflib.unified_diff(old, new, was, f"b/{name}"):
            yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _lines(content: bytes) -> list[str]:
    """Lines as Git has them: rows of JSON may hold what else Unicode calls a line's end."""
    return io.StringIO(content.decode("utf-8", "replace"), newline="\n").readlines()


def document(root: Path, planned: Planned, action: str) -> dict[str, object]:
    """What `--json` prints."""
    return {
        "files": [
            {"path": name, "action": "change" if (root / name).exists() else "create"}
            for name in sorted(planned.files)
        ],
        "kept": planned.kept,
        "adapters": [
            adapter.model_dump(include={"path", "key", "config", "lock", "suite", "archive"})
            for adapter in planned.survey.adapters
        ],
        "held_out": [
            {
                "suite": suite,
                "sources": rows.sources,
                "questions": len(rows.rows),
                "rows_moved": rows.moved,
                "questions_left": rows.questions_left,
            }
            for suite, rows in planned.held_out.items()
        ],
        "workflow_action": action,
        "notes": planned.notes,
        "next": planned.commands,
    }
