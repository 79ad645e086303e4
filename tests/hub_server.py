"""A local server that speaks as much of the Hub's protocol as its client asks: repository
information with file metadata, and the small files themselves."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    """One commit of a model or dataset. Files in `lfs` are told by their digest and never served:
    whoever asks for one has asked for too much."""

    commit: str
    files: Mapping[str, bytes]
    lfs: frozenset[str] = frozenset()
    refs: frozenset[str] = frozenset({"main"})

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
        found: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": blob}
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

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.asked.append(path)
                status, headers, body = hub.answer(path)
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

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        for key, repository in self.repositories.items():
            kind, _, name = key.partition("/")
            if path == f"/api/{kind}/{name}":
                return _json(repository.information(name))
            if path.startswith(f"/api/{kind}/{name}/revision/"):
                revision = path.rpartition("/revision/")[2]
                if revision in repository.refs | {repository.commit}:
                    return _json(repository.information(name))
                return 404, {"X-Error-Code": "RevisionNotFound"}, b""
            prefix = f"/{name}/resolve/" if kind == "models" else f"/{kind}/{name}/resolve/"
            if path.startswith(prefix):
                return self._file(repository, path.removeprefix(prefix).partition("/")[2])
        return 404, {"X-Error-Code": "RepoNotFound"}, b""

    @staticmethod
    def _file(repository: Repository, name: str) -> tuple[int, dict[str, str], bytes]:
        if name in repository.lfs or name not in repository.files:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        content = repository.files[name]
        tag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return 200, {"X-Repo-Commit": repository.commit, "ETag": f'"{tag}"'}, content


def _json(content: object) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()
