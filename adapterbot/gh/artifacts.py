"""Reports that another run uploaded, taken out of their archives without trusting these.

Whoever wrote the archive may have written anything into it. Nothing is unpacked onto the disk: the
one member that we came for is read in memory, and bounded before and while it is read.
"""

from __future__ import annotations

import io
import stat
import time
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
from github import GithubException

from adapterbot.errors import InputError
from adapterbot.gh.client import Client
from adapterbot.gh.transport import StrangeAnswer

PERMISSION = "actions: read"
MEMBER = "report.json"
_MOST_MEMBERS = 100
_MOST_ARTIFACTS = 64
# GitHub's own uploads know no other. LZMA's and bzip2's decoders would be two more to trust: a
# header of five bytes makes the first of them ask for gigabytes.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_CHUNK = 1 << 16
# A store that dribbles must not hold the job: a report is small.
_MOST_SECONDS = 60.0
_TIMEOUT = (10, 20)


@dataclass(frozen=True)
class Artifact:
    """An artifact of a run, as GitHub lists it."""

    id: int
    name: str
    size: int


def find(client: Client, repository: str, run_id: int, name: str) -> list[Artifact]:
    """The artifacts called `name`, or `name-…` as the legs of a matrix call theirs; of each name
    the newest, since a re-run leaves the older ones there.

    Raises:
        InputError: the token may not, or there are too many.
        GitHubFailure: GitHub refused or did not answer.
    """
    # Lazily known by its id; the run itself is not asked for.
    url = f"/repos/{repository}/actions/runs/{run_id}/artifacts"

    def ask() -> list[Artifact]:
        page, listed = 1, []
        while True:
            given = {"per_page": 100, "page": page}
            _, data = client.api.requester.requestJsonAndCheck("GET", url, parameters=given)
            listed += [
                Artifact(int(a["id"]), str(a["name"]), int(a["size_in_bytes"]))
                for a in data["artifacts"]
                if not a["expired"]
            ]
            if len(data["artifacts"]) < 100:
                return listed
            page += 1

    listed = client.repeat(f"listing the artifacts of run {run_id}", ask, permission=PERMISSION)
    newest: dict[str, Artifact] = {}
    for artifact in sorted(listed, key=lambda artifact: artifact.id):
        if artifact.name == name or artifact.name.startswith(f"{name}-"):
            newest[artifact.name] = artifact
    if len(newest) > _MOST_ARTIFACTS:
        raise InputError(
            f"run {run_id} has more than {_MOST_ARTIFACTS} reports",
            file=name,
            fix="judge several adapters in one leg of the matrix",
        )
    return list(newest.values())


def fetch(client: Client, repository: str, artifact: Artifact, limit: int) -> bytes:
    """The report inside an artifact: at most `limit` bytes.

    Raises:
        InputError: it is too large, or no archive that we would open.
        GitHubFailure: GitHub or its store refused or did not answer.
    """
    if artifact.size > limit:
        raise InputError(
            f"is larger than {limit:,} bytes", file=artifact.name, fix="upload report.json alone"
        )
    archive = client.repeat(
        f"downloading the artifact {artifact.name!r} of {repository}",
        lambda: _download(client, repository, artifact.id, limit),
        permission=PERMISSION,
    )
    return unpack(archive, artifact.name, limit)


def _download(client: Client, repository: str, number: int, limit: int) -> bytes:
    """The archive, by way of the address that GitHub redirects to."""
    api = client.api.requester.base_url
    auth = client.api.requester.auth
    headers = {"Authorization": f"Bearer {auth.token}"} if auth else {}
    url = f"{api}/repos/{repository}/actions/artifacts/{number}/zip"
    with _get(url, headers) as reply:
        if reply.status_code < 400 and reply.status_code != 302:
            what = f"status {reply.status_code}, and no address of the artifact"
            raise StrangeAnswer(urlsplit(url).netloc, what)
        if reply.status_code != 302:
            known = reply.headers.get("content-type", "").startswith("application/json")
            data = reply.json() if known else {"message": reply.reason}
            raise GithubException(reply.status_code, data, dict(reply.headers))
        place = reply.headers.get("location", "")
    # The token is GitHub's, not the store's; and a redirect is no way out of TLS.
    if urlsplit(place).scheme != "https" and urlsplit(place).scheme != urlsplit(api).scheme:
        raise GithubException(502, {"message": "the artifact's address is not https"}, {})
    try:
        with _get(place, {}) as reply:
            if reply.status_code != 200:
                raise GithubException(502, {"message": f"store: {reply.status_code}"}, {})
            return _bounded(reply, limit)
    except requests.RequestException as error:
        # Its text quotes the address, which is signed: whoever reads it may read the artifact.
        raise requests.ConnectionError(f"the artifact store: {type(error).__name__}") from None


def _get(url: str, headers: Mapping[str, str]) -> requests.Response:
    # requests writes the word of a `.netrc` over a header, unless it has an `auth` to ask.
    return requests.get(
        url,
        headers=headers,
        auth=lambda request: request,
        timeout=_TIMEOUT,
        allow_redirects=False,
        stream=True,
    )


def _bounded(reply: requests.Response, limit: int) -> bytes:
    content, until = bytearray(), time.monotonic() + _MOST_SECONDS
    for chunk in reply.iter_content(_CHUNK):
        content += chunk
        if len(content) > limit:
            raise InputError(f"is larger than {limit:,} bytes", file="the artifact")
        if time.monotonic() > until:
            raise requests.Timeout
    return bytes(content)


def unpack(archive: bytes, name: str, limit: int) -> bytes:
    """`report.json` out of an archive.

    Args:
        name: of the artifact, for errors.
        limit: bytes that the report may have.

    Raises:
        InputError: not an archive, or one that holds what a report's archive does not.
    """

    def refuse(why: str) -> InputError:
        fix = "upload the report.json that the gate wrote, and nothing else"
        return InputError(why, file=name, fix=fix)

    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            members = opened.infolist()
            if len(members) > _MOST_MEMBERS:
                raise refuse(f"holds more than {_MOST_MEMBERS} files")
            for member in members:
                if _leaves(member.filename):
                    raise refuse(f"holds a path that leads out of it: {member.filename[:100]!r}")
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise refuse(f"holds a symbolic link: {member.filename[:100]!r}")
            found = [member for member in members if member.filename == MEMBER]
            if len(found) != 1:
                raise refuse(f"holds {len(found)} files named {MEMBER}, not one")
            if found[0].flag_bits & 1:
                raise refuse("is encrypted")
            if found[0].compress_type not in _COMPRESSIONS:
                raise refuse("is compressed by another method than deflate")
            if found[0].file_size > limit:
                raise refuse(f"{MEMBER} is larger than {limit:,} bytes")
            with opened.open(found[0]) as file:
                # What the header says is one thing, what comes out another.
                content = file.read(limit + 1)
    # An offset beyond what a file can have overflows.
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        OverflowError,
        ValueError,
    ) as error:
        raise refuse("is not an archive that we can read") from error
    if len(content) > limit:
        raise refuse(f"{MEMBER} is larger than {limit:,} bytes")
    return content


def _leaves(path: str) -> bool:
    parts = path.replace("\\", "/").split("/")
    return path.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]
