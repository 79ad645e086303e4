"""HTTP in front of a `World`: tokens, faults, the log, and GitHub's description as the judge."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl

from tests.github_server.contract import Contract, Operation, contract
from tests.github_server.records import Call, Comment, Json, Pull, Refusal, Reply, Token
from tests.github_server.world import World


@dataclass
class Fault:
    """Something that goes wrong on the way, `times` times, for requests that it matches.

    `after_write` lets the operation happen first, so that the caller cannot know. `reset` ends the
    connection with a TCP reset, `truncate` after half of the body; `status` replaces the reply, and
    `errors` are what GraphQL lists in one of status 200. A `page` is sent as it is, as a web page.
    `delay` seconds pass before the reply, `drip` between each eighth of its body.
    """

    method: str = ""
    path: str = ""
    status: int | None = None
    message: str = "Server Error"
    headers: dict[str, str] = field(default_factory=dict)
    errors: Sequence[Json] = ()
    page: bytes | None = None
    after_write: bool = False
    reset: bool = False
    truncate: bool = False
    delay: float = 0.0
    drip: float = 0.0
    times: int = 1

    def matches(self, method: str, path: str) -> bool:
        return self.times > 0 and self.method in ("", method) and bool(re.search(self.path, path))


_MINIMIZE = (
    "mutation($id:ID!){minimizeComment(input:{subjectId:$id,classifier:OUTDATED})"
    "{minimizedComment{isMinimized}}}"
)
_UPDATE_REFS = (
    "mutation($repository:ID!,$name:GitRefname!,$old:GitObjectID!,$new:GitObjectID!)"
    "{updateRefs(input:{repositoryId:$repository,refUpdates:"
    "[{name:$name,beforeOid:$old,afterOid:$new,force:true}]}){clientMutationId}}"
)
_OID = re.compile("[0-9a-f]{40}")
Chaos = Callable[[str, str], Fault | None]
"""Asked with method and path when no listed fault matches; for random faults."""


@dataclass(frozen=True)
class Exchange:
    """One request and what came of it. The token is not kept."""

    method: str
    path: str
    query: str
    operation: str | None
    body: Any
    headers: dict[str, str]
    status: int | None
    login: str | None
    fault: Fault | None


class GitHubServer:
    """A stateful GitHub on localhost, for as long as the `with` block lasts.

    Every request and every reply is held against GitHub's OpenAPI description; what does not fit
    is in `violations`, and a test that uses the server asserts that this is empty.

    Args:
        port: 0 picks a free one.
        prefix: "/api/v3" makes it look like GitHub Enterprise Server.
        chaos: random faults.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        prefix: str = "",
        chaos: Chaos | None = None,
    ) -> None:
        self.prefix = prefix
        self.chaos = chaos
        self.tokens: dict[str, Token] = {}
        self.faults: list[Fault] = []
        self.requests: list[Exchange] = []
        self.violations: list[str] = []
        self.closing = threading.Event()
        self._http = _Listener((host, port), _Handler)
        self._http.github = self
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._root = f"http://{host}:{self._http.server_port}"
        self.world = World(self.url)

    @property
    def url(self) -> str:
        """What GITHUB_API_URL would hold."""
        return self._root + self.prefix

    @property
    def graphql_url(self) -> str:
        """What GITHUB_GRAPHQL_URL would hold."""
        return self._root + self.graphql_path

    @property
    def graphql_path(self) -> str:
        return self.prefix.removesuffix("/v3") + "/graphql"

    @property
    def check_runs(self) -> list[Json]:
        return self.world.check_runs

    @property
    def statuses(self) -> list[Json]:
        return self.world.statuses

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def add_token(
        self,
        token: str,
        login: str = "github-actions[bot]",
        *,
        viewer: str | None = None,
        read_only: bool = False,
        forbidden: Sequence[str] = (),
    ) -> None:
        """Let `token` speak for `login`; GraphQL calls it `viewer` (the same by default)."""
        self.tokens[token] = Token(login, viewer or login, read_only, tuple(forbidden))

    def add_pull(self, repository: str, number: int, **details: Any) -> Pull:
        """See `World.add_pull`."""
        return self.world.add_pull(repository, number, **details)

    def add_repository(self, repository: str, bare: Path) -> None:
        """Put a bare Git repository behind the Git Data API of `repository`."""
        self.world.bare[repository] = bare

    def add_comment(self, repository: str, number: int, body: str, *, author: str) -> Comment:
        """See `World.add_comment`."""
        return self.world.add_comment(repository, number, body, author=author)

    def comments(self, repository: str, number: int) -> list[Comment]:
        """The comments of one pull request, oldest first."""
        with self.world.lock:
            found = sorted(self.world.all_comments.values(), key=lambda comment: comment.id)
        return [c for c in found if (c.repository, c.number) == (repository, number)]

    def inject(self, *faults: Fault) -> None:
        """Queue faults; the first that matches a request is used up first."""
        with self.world.lock:
            self.faults.extend(faults)

    def sent(self, method: str, pattern: str = "") -> list[Exchange]:
        """The log, for one method and a pattern searched in the path."""
        return [r for r in self.requests if r.method == method and re.search(pattern, r.path)]

    def take_fault(self, method: str, path: str) -> Fault | None:
        """The fault that hits this request, if any."""
        with self.world.lock:
            for fault in self.faults:
                if fault.matches(method, path):
                    fault.times -= 1
                    return fault
        return self.chaos(method, path) if self.chaos else None

    def answer(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        body: bytes | None,
        fault: Fault | None,
    ) -> Reply | None:
        """Judge, log and answer one request; None when the fault leaves no reply."""
        path, _, query = target.partition("?")
        unknown = None
        try:
            token = self._token(headers)
        except Refusal as refusal:
            token, unknown = None, refusal
        operation: Operation | None = None
        if fault is not None and (fault.status or fault.reset) and not fault.after_write:
            reply = _faulty(fault)
        elif path.startswith(f"{self.prefix}/_store/"):
            reply = self.world.stored(path, headers)
        elif token is None:
            wanted = "Bad credentials" if "authorization" in headers else "Requires authentication"
            reply = (unknown or Refusal(401, wanted)).reply
        elif path == self.graphql_path:
            reply = self._graphql(token, body)
            if fault is not None and (fault.status or fault.reset):
                reply = _faulty(fault)
        else:
            operation, reply = self._rest(method, target, headers, body, token)
            if fault is not None and (fault.status or fault.reset):
                reply = _faulty(fault)
        gone = fault is not None and fault.reset
        kept = {k: v for k, v in headers.items() if k != "authorization"}
        exchange = Exchange(
            method=method,
            path=path,
            query=query,
            operation=operation.id if operation else None,
            body=_parsed(body),
            headers=kept,
            status=None if gone else reply.status,
            login=token.login if token else None,
            fault=fault,
        )
        with self.world.lock:
            self.requests.append(exchange)
        return None if gone else reply

    def _token(self, headers: dict[str, str]) -> Token | None:
        scheme, _, value = headers.get("authorization", "").partition(" ")
        if scheme.lower() not in {"token", "bearer"}:
            return None
        known = self.tokens.get(value) or self.world.minted_as(value)
        if known is None and value.count(".") == 2 and scheme.lower() == "bearer":
            return self.world.app_of(value)  # "If you are passing a JWT, you must use Bearer"
        return known

    def _graphql(self, token: Token, body: bytes | None) -> Reply:
        query = (_parsed(body) or {}).get("query", "")
        given = (_parsed(body) or {}).get("variables", {})
        denied = {"type": "FORBIDDEN", "message": "Resource not accessible by integration"}
        if re.sub(r"\s+", "", query) == _MINIMIZE:
            if token.read_only:
                return Reply(200, {"data": None, "errors": [denied]})
            return self.world.minimize(given)
        if re.sub(r"\s+", "", query) == _UPDATE_REFS:
            if given.keys() != {"repository", "name", "old", "new"} or not (
                given["name"].startswith("refs/heads/")
                and all(_OID.fullmatch(given[side]) for side in ("old", "new"))
            ):
                return self._violation(f"updateRefs with {given!r}", 400)
            if token.read_only or "git/update-ref".startswith(token.forbidden or ("-",)):
                return Reply(200, {"data": {"updateRefs": None}, "errors": [denied]})
            return self.world.update_refs(given)
        if re.sub(r"\s+", "", query) not in {"{viewer{login}}", "query{viewer{login}}"}:
            return self._violation(f"unknown GraphQL query {query!r}", 400)
        return Reply(200, {"data": {"viewer": {"login": token.viewer}}})

    def _rest(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        body: bytes | None,
        token: Token,
    ) -> tuple[Operation | None, Reply]:
        judge: Contract = contract()
        if not target.startswith(self.prefix + "/"):
            return None, self._violation(f"{method} {target}: outside {self.prefix}", 404)
        target = target.removeprefix(self.prefix)
        path, _, query = target.partition("?")
        operation = judge.operation(method, path)
        if operation is None:
            return None, self._violation(f"{method} {target}: not in GitHub's description", 404)
        where = f"{method} {target} ({operation.id})"
        wrong = judge.request_errors(operation, method, target, headers, body)
        if wrong:
            return operation, self._violation(f"{where} request: {'; '.join(wrong)}", 422)
        if (token.read_only and method != "GET") or operation.id.startswith(token.forbidden):
            return operation, Refusal(403, "Resource not accessible by integration").reply
        call = Call(
            variables=self.world.canonical(operation.variables),
            query=dict(parse_qsl(query)),
            body=_parsed(body) or {},
            login=token.login,
            path=path,
        )
        try:
            reply = self.world.handle(operation.id, call)
        except NotImplementedError:
            return operation, self._violation(f"{where}: the test server does not do this yet", 501)
        data = None if reply.data is None else json.dumps(reply.data).encode()
        wrong = judge.response_errors(operation, method, target, reply.status, data)
        if wrong:
            self._violation(f"{where} reply {reply.status}: {'; '.join(wrong)}", 500)
        return operation, reply

    def _violation(self, text: str, status: int) -> Reply:
        with self.world.lock:
            self.violations.append(text)
        return Reply(status, {"message": text})


class _Listener(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True
    # A request that a fault delays must not hold up the end of the test.
    block_on_close = False
    github: GitHubServer


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    protocol_version = "HTTP/1.1"
    # Headers and body leave in two writes; without this each reply waits 40 ms for an ACK.
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        github = self.server.github
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length) if length else None
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault = github.take_fault(self.command, self.path.partition("?")[0])
        reply = github.answer(self.command, self.path, headers, body, fault)
        if fault is not None:
            github.closing.wait(fault.delay)
        if reply is None:
            self._reset()
            return
        raw = isinstance(reply.data, bytes)
        data = b"" if reply.data is None else reply.data if raw else json.dumps(reply.data).encode()
        try:
            self.send_response(reply.status)
            kind = "application/zip" if raw else "application/json; charset=utf-8"
            kind = "text/html" if fault is not None and fault.page is not None else kind
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if fault is not None and fault.truncate:
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return
            if fault is not None and fault.drip:
                for start in range(0, len(data), 1 + len(data) // 8):
                    self.wfile.write(data[start : start + 1 + len(data) // 8])
                    github.closing.wait(fault.drip)
                return
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client ran out of patience, as some tests want

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()
        self.close_connection = True

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve  # noqa: N815

    def date_time_string(self, timestamp: float | None = None) -> str:
        ahead = self.server.github.world.ahead.total_seconds()
        return super().date_time_string((timestamp or time.time()) + ahead)

    def log_message(
        self,
        format: str,  # noqa: A002
        *args: Any,
    ) -> None:
        """Quiet: `GitHubServer.requests` is the log."""


def _faulty(fault: Fault) -> Reply:
    if fault.page is not None:
        return Reply(fault.status or 0, fault.page, fault.headers)
    said = {"errors": list(fault.errors)} if fault.errors else {"message": fault.message}
    return Reply(fault.status or 0, said, fault.headers)


def _parsed(body: bytes | None) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return None
