"""The attributes by which Git writes other bytes into a checkout than a commit holds."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from adapterbot.git.program import environment_for, git_as

_REWRITING = ("working-tree-encoding", "ident", "export-subst", "filter")
_AS_IT_IS = re.compile(rb"[a-z-]+=(unspecified|unset)|filter=lfs|working-tree-encoding=(?i:utf-?8)")


def rewritten(repository: Path, commit: str, paths: Sequence[str]) -> dict[str, str]:
    """Path → attributes, for those files that a checkout, or an archive, of the commit holds with
    other bytes. Git LFS does not count: what it writes is pinned by its digest.

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
    found: dict[str, str] = {}
    for path, name, value in zip(told[0::3], told[1::3], told[2::3], strict=False):
        attribute = name + b"=" + value
        if not _AS_IT_IS.fullmatch(attribute):
            where = path.decode("utf-8", "surrogateescape")
            said = attribute.decode(errors="replace")
            found[where] = f"{found[where]} and {said}" if where in found else said
    return found
