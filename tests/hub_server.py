"""A local server that speaks as much of the Hub's protocol as its client asks: repository
information with file metadata, histories and tags, and the files themselves."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Repository:
    """One commit of a model or dataset, and those before it. Files in `lfs` are told by their
    digest and, unless `serves_lfs`, never served: whoever asks for one has asked for too much. One
    that is `gated` is listed, but its files are for those who accepted its terms. `sizes` are told
    in place of the true ones."""

    commit: str
    files: Mapping[str, bytes]
    lfs: frozenset[str] = frozenset()
    refs: frozenset[str] = frozenset({"main"})
    parent: Repository | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    serves_lfs: bool = False
    gated: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict)

    def history(self) -> Iterator[Repository]:
        """This commit and those before it, the newest first."""
        yield self
        if self.parent:
            yield from self.parent.history()

    def at(self, revision: str) -> Repository | None:
        """The commit that a branch, tag or hash names."""
        wanted = self.commit if revision in self.refs else self.tags.get(revision, revision)
        return next((one for one in self.history() if one.commit == wanted), None)

    def last_change(self, path: str) -> str:
        """The commit that gave a file the content that it has."""
        found = self
        while found.parent and found.parent.files.get(path) == self.files[path]:
            found = found.parent
        return found.commit

    def tree(self, folder: str, *, recursive: bool = False) -> list[dict[str, Any]]:
        """The files and folders right below a folder, or all the files that it holds."""
        prefix = f"{folder}/" if folder else ""
        below = {name.removeprefix(prefix) for name in self.files if name.startswith(prefix)}
        if recursive:
            return [self.entry(prefix + name) for name in sorted(below)]
        folders = sorted({name.partition("/")[0] for name in below if "/" in name})
        return [
            *(self.entry(prefix + name) for name in sorted(below) if "/" not in name),
            *({"type": "directory", "oid": "0" * 40, "path": prefix + name} for name in folders),
        ]

    def entry(self, path: str) -> dict[str, Any]:
        """One file, as listings tell of it."""
        told = self._sibling(path, self.files[path])
        found = {"type": "file", "path": path, "size": told["size"], "oid": told["blobId"]}
        if path in self.lfs:
            found["lfs"] = {**told["lfs"], "oid": told["lfs"]["sha256"]}
        last = {"id": self.last_change(path), "title": "t", "date": "2026-01-01T00:00:00.000Z"}
        return {**found, "lastCommit": last}

    def information(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "modelId": name,
            "sha": self.commit,
            "private": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": [self._sibling(path, content) for path, content in self.files.items()],
        }

    def _sibling(self, path: str, content: bytes) -> dict[str, Any]:
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        size = self.sizes.get(path, len(content))
        found: dict[str, Any] = {"rfilename": path, "size": size, "blobId": blob}
        if path in self.lfs:
            sha = hashlib.sha256(content).hexdigest()
            found["lfs"] = {"sha256": sha, "size": len(content), "pointerSize": 134}
        return found


@dataclass
class Hub:
    """`with Hub({"models/org/name": Repository(…)}) as hub:` gives `hub.url`, and in `hub.asked`
    the paths that were asked for."""

    repositories: dict[str, Repository]
    asked: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

            def do_GET(self) -> None:
                self._answer(urlsplit(self.path).query)

            def _answer(self, form: str) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.asked.append(path)
                status, headers, body = hub.answer(path, parse_qs(form))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, path: str, form: Mapping[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
        for key, repository in self.repositories.items():
            kind, _, name = key.partition("/")
            if path == f"/api/{kind}/{name}":
                return _json(repository.information(name))
            if path == f"/api/{kind}/{name}/refs":
                tags = [
                    {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": commit}
                    for tag, commit in repository.tags.items()
                ]
                return _json({"branches": [], "converts": [], "tags": tags})
            if path.startswith(f"/api/{kind}/{name}/"):
                what, _, rest = path.removeprefix(f"/api/{kind}/{name}/").partition("/")
                revision, _, rest = rest.partition("/")
                found = repository.at(revision)
                if found is None:
                    return 404, {"X-Error-Code": "RevisionNotFound"}, b""
                return _json(_told(found, what, rest, name, form))
            prefix = f"/{name}/resolve/" if kind == "models" else f"/{kind}/{name}/resolve/"
            if path.startswith(prefix):
                revision, _, file = path.removeprefix(prefix).partition("/")
                return self._file(repository.at(revision) or repository, file)
        return 404, {"X-Error-Code": "RepoNotFound"}, b""

    @staticmethod
    def _file(repository: Repository, name: str) -> tuple[int, dict[str, str], bytes]:
        if repository.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        kept_back = name in repository.lfs and not repository.serves_lfs
        if kept_back or name not in repository.files:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        content = repository.files[name]
        tag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return 200, {"X-Repo-Commit": repository.commit, "ETag": f'"{tag}"'}, content


def _told(
    repository: Repository, what: str, rest: str, name: str, form: Mapping[str, list[str]]
) -> object:
    """What the API says of one commit."""
    if what == "commits":
        return [
            {
                "id": one.commit,
                "authors": [{"user": "u"}],
                "date": "2026-01-01T00:00:00.000Z",
                "title": "t",
                "message": "",
            }
            for one in repository.history()
        ]
    if what == "paths-info":
        return [repository.entry(path) for path in form["paths"] if path in repository.files]
    if what == "tree":
        return repository.tree(rest, recursive=form.get("recursive") in (["true"], ["True"]))
    return repository.information(name)


def _json(content: object) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()
