"""`adapterbot init`: what it finds out, shows and writes. Asking is the command line's."""

from __future__ import annotations

import difflib
import io
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from adapterbot import beside
from adapterbot.commands.origin import beside_origin
from adapterbot.commands.place import checkout
from adapterbot.context import server_url
from adapterbot.errors import OurFailure
from adapterbot.files import atomic
from adapterbot.files.paths import is_hidden
from adapterbot.files.tree import WorkTree
from adapterbot.git.program import git, git_as
from adapterbot.init import WORKFLOW, Planned, Wanted, plan
from adapterbot.init.workflow import action_parts, is_pinned
from adapterbot.jobs import FOLDER, jobs

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
    tag, server = f"refs/tags/{ref}", server_url(environment)
    named = environment.get("GITHUB_SERVER_URL") or environment.get("GITHUB_API_URL")
    here = Path.cwd()
    url = f"{server}/{repository}" if named else beside_origin(here, repository, server)
    quiet = {**beside.programs_environment(), "GIT_TERMINAL_PROMPT": "0"}
    # An annotated tag is an object of its own; `^{}` is the commit that it is about.
    asked = ("ls-remote", url, tag, f"{tag}^{{}}")
    try:
        listed = git_as(here, quiet, *asked, seconds=_SECONDS).decode(errors="replace")
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
    gates = [f"{FOLDER}/{job.workflow}" for job in jobs(root) if job.gates]
    gate = WORKFLOW if WORKFLOW in gates or not gates else gates[0]
    planned = plan(WorkTree(root), names, wanted, gate)
    if gate != WORKFLOW:
        planned.notes.append(f"{gate} gates pull requests already, so no second workflow does")
    planned.commands += [*_committing(root, planned), "adapterbot doctor"]
    if Path.cwd().resolve() != root.resolve():
        planned.commands.insert(0, f"cd {shlex.quote(os.path.relpath(root))}")
    if WORKFLOW in planned.files and not is_pinned(wanted.action):
        planned.notes.append(
            f"{wanted.action} could not be looked up from here: in the workflow, replace its tag "
            "by the commit of its release"
        )
    return root, planned


def _committing(root: Path, planned: Planned) -> Iterator[str]:
    """By name: what else lies about, such as a run's checkpoints, is nobody's wish to commit."""
    ignored = _ignored(root, [*planned.files, *planned.made])
    # Data that Git ignores stays where it is; a suite or a lock must come along.
    wanted = [name for name in sorted(planned.files) if not (root / name).exists()]
    wanted += [name for name in sorted(planned.files) if name not in {*wanted, *ignored}]
    wanted += planned.made
    forced = sorted(ignored & set(wanted))
    if forced:
        planned.notes.append(f"Git ignores {', '.join(forced)}: the gate needs it, hence --force")
    if wanted:
        yield f"git add {'--force ' if forced else ''}-- {shlex.join(wanted)}"
        yield "git commit -m 'Gate the adapters'"


def _ignored(root: Path, names: Sequence[str]) -> set[str]:
    given = "".join(f"{name}\0" for name in names).encode()
    try:
        told = git_as(
            root, beside.programs_environment(), "check-ignore", "-z", "--stdin", given=given
        )
    except OurFailure:  # none of them
        return set()
    return set(told.decode().split("\0")) - {""}


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
