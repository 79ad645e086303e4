"""By which attributes Git writes other bytes into a checkout than a commit holds."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from adapterbot.git.program import environment_for, git_as

_REWRITING = ("working-tree-encoding", "ident", "export-subst", "filter")
_AS_IT_IS = {"unspecified", "unset", "lfs"}


def rewritten(repository: Path, commit: str, paths: Sequence[str]) -> dict[str, str]:
    """Path → attribute of each of the files that a checkout, or an archive of the commit, holds
    otherwise. Git LFS is none of these: what it writes is pinned by its digest.

    Raises:
        OurFailure: Git failed, or is not installed.
    """
    given = b"".join(path.encode("utf-8", "surrogateescape") + b"\0" for path in paths)
    with tempfile.TemporaryDirectory(prefix="adapterbot-") as folder:
        environment = {**environment_for(repository), "GIT_INDEX_FILE": f"{folder}/index"}
        # An index is where every Git can read the attributes of another commit from.
        git_as(repository, environment, "read-tree", commit)
        asked = ("check-attr", "--cached", "-z", "--stdin", *_REWRITING)
        told = git_as(repository, environment, *asked, given=given).split(b"\0")
    return {
        path.decode("utf-8", "surrogateescape"): f"{name.decode()}={value.decode(errors='replace')}"
        for path, name, value in zip(told[0::3], told[1::3], told[2::3], strict=False)
        if value.decode(errors="replace") not in _AS_IT_IS
    }
