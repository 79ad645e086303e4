"""Which repository on GitHub a checkout came from, by the address of its `origin`."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from adapterbot.errors import InputError, OurFailure
from adapterbot.git.program import git

# git-clone(1), "GIT URLS": with a scheme, or as scp writes it, which has no port.
_URL = re.compile(r"(?:https?|ssh|git)://(?:[^/@]*@)?(?P<host>[^/@:]+)(?::\d*)?/(?P<path>.*)")
_SCP = re.compile(r"(?:[^/@:]*@)?(?P<host>[^/@:]+):(?P<path>(?!//).*)")


def repository_at(root: Path, server: str) -> str:
    """What `origin` calls the repository on `server`: "owner/name", not yet checked; "" where
    there is no `origin`.

    Args:
        server: where the repositories are, as GITHUB_SERVER_URL has it.

    Raises:
        InputError: `origin` is on another host, of which the API knows nothing. What SSH's
            configuration calls a host by another name is another host here.
    """
    origin = _origin(root)
    if not origin:
        return ""
    ours = _host(f"{server}/")
    found = _parsed(origin)
    host = found["host"].lower() if found else ""
    if not found or not _is_on(found, server):
        where = f"is on {host[:100]}" if host else "is no address of a server"
        raise InputError(
            f"{where}, and the pull request would be opened on {ours or server}",
            file="remote `origin`",
            fix="name the repository there with --repo owner/name, or set GITHUB_API_URL",
        )
    # A server may lie below a path, which an address over SSH leaves out.
    below = urlsplit(f"{server}/").path.lstrip("/")
    return found["path"].strip("/").removesuffix(".git").removeprefix(below)


def beside_origin(root: Path, repository: str, server: str) -> str:
    """The address of another repository: on `server`, unless `origin` is on one of its own; then
    there, and on the same way. A repository of that name on `server` is somebody else's.

    Args:
        repository: "owner/name".
    """
    origin = _origin(root)
    found = _parsed(origin)
    if not found or _is_on(found, server):
        return f"{server}/{repository}"
    before = origin[: found.start("path")]
    if before.startswith("http"):
        before = re.sub("//[^/@]*@", "//", before)  # arguments are everybody's to see
    below = "/".join(found["path"].strip("/").split("/")[:-2])
    return f"{before}{below}{'/' if below else ''}{repository}"


def _origin(root: Path) -> str:
    """Its address; "" where there is none."""
    try:
        # Git has already put in place what `url.….insteadOf` says.
        return git(root, "remote", "get-url", "origin").decode(errors="replace").strip()
    except OurFailure:
        return ""


def _parsed(origin: str) -> re.Match[str] | None:
    return _URL.fullmatch(origin) or _SCP.fullmatch(origin)


def _is_on(origin: re.Match[str], server: str) -> bool:
    ours = _host(f"{server}/")
    # GitHub answers SSH on the port of HTTPS under a name of its own.
    return origin["host"].lower() in {ours, f"ssh.{ours}"}


def _host(url: str) -> str:
    found = _URL.fullmatch(url)
    return found["host"].lower() if found else ""
