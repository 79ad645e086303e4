"""What the server remembers, and what each operation does to it.

A handler is a method of `World` named after the operationId of GitHub's description
(`issues/create-comment` is `issues_create_comment`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from tests.github_server.proposals import Proposals
from tests.github_server.records import Call, Comment, Json, Pull, Refusal, Reply, Token
from tests.github_server.runs import App, Runs, StoredArtifact
from tests.github_server.shapes import (
    blank,
    check_json,
    comment_json,
    pull_json,
    repository_json,
    user_json,
)

BODY_LIMIT = 65536


class World(Proposals, Runs):
    """The state behind the server. Every handler runs under one lock."""

    def __init__(self, url: str = "http://localhost") -> None:
        super().__init__()
        self.url = url
        self.reviews: dict[tuple[str, int], list[str]] = {}
        self.collaborators: set[str] = set()
        self.may_open = True
        self.drafts_allowed = True
        self.lock = threading.RLock()
        self.pulls: dict[tuple[str, int], Pull] = {}
        self.all_comments: dict[int, Comment] = {}
        self.check_runs: list[Json] = []
        self.statuses: list[Json] = []
        self.permissions: dict[tuple[str, str], str] = {}
        self.artifacts: dict[int, StoredArtifact] = {}
        self.apps: list[App] = []
        self.minted: dict[str, tuple[Token, datetime]] = {}
        self.ahead = timedelta()  # of GitHub's clock over ours
        self.minimized: list[int] = []
        self._last_id = 1000

    def next_id(self) -> int:
        with self.lock:
            self._last_id += 1
            return self._last_id

    def canonical(self, variables: Mapping[str, str]) -> Mapping[str, str]:
        """A repository goes by its name however that is capitalised."""
        given = "/".join(variables.get(part, "") for part in ("owner", "repo"))
        for known in {repository for repository, _ in self.pulls} | self.bare.keys():
            if known.casefold() == given.casefold():
                owner, _, repo = known.partition("/")
                return {**variables, "owner": owner, "repo": repo}
        return variables

    def handle(self, operation: str, call: Call) -> Reply:
        """Run the handler of `operation`; `NotImplementedError` when there is none."""
        handler = getattr(self, operation.replace("/", "_").replace("-", "_"), None)
        if handler is None:
            raise NotImplementedError(operation)
        with self.lock:
            try:
                reply: Reply = handler(call)
            except Refusal as refusal:
                return refusal.reply
            return reply

    # ------------------------------------------------------------ comments

    def issues_list_comments(self, call: Call) -> Reply:
        pull = self._pull(call, "issue_number")
        found = [
            c
            for c in sorted(self.all_comments.values(), key=lambda c: c.id)
            if (c.repository, c.number) == (pull.repository, pull.number)
        ]
        return self._page(call, [comment_json(self.url, comment) for comment in found])

    def issues_create_comment(self, call: Call) -> Reply:
        pull = self._pull(call, "issue_number")
        if pull.locked:
            raise Refusal(403, "Unable to create comment because issue is locked.")
        comment = self.add_comment(
            pull.repository, pull.number, _body(call.body), author=call.login
        )
        return Reply(201, comment_json(self.url, comment))

    def issues_get_comment(self, call: Call) -> Reply:
        return Reply(200, comment_json(self.url, self._comment(call)))

    def issues_update_comment(self, call: Call) -> Reply:
        comment = self._comment(call)
        comment.body = _body(call.body)
        comment.updated_at = _now()
        return Reply(200, comment_json(self.url, comment))

    def issues_delete_comment(self, call: Call) -> Reply:
        del self.all_comments[self._comment(call).id]
        return Reply(204)

    def reactions_create_for_issue_comment(self, call: Call) -> Reply:
        comment = self._comment(call)
        content = call.body["content"]
        comment.reactions.append(content)
        known = {"id": self.next_id(), "content": content, "user": user_json(call.login)}
        return Reply(201, blank("reaction") | known)

    def issues_add_labels(self, call: Call) -> Reply:
        pull = self._pull(call, "issue_number")
        names = call.body["labels"]
        pull.labels.extend(name for name in names if name not in pull.labels)
        return Reply(200, [blank("label") | {"name": name} for name in pull.labels])

    # ------------------------------------------------------------ pulls, repositories, users

    def pulls_get(self, call: Call) -> Reply:
        return Reply(200, pull_json(self.url, self._pull(call, "pull_number"), "pull-request"))

    def pulls_list(self, call: Call) -> Reply:
        head, base = call.query.get("head"), call.query.get("base")
        found = [
            self.live(pull)
            for (repository, _), pull in sorted(self.pulls.items())
            if repository == call.repository
            and call.query.get("state", "open") in ("all", pull.state)
            and base in (None, pull.base_ref)
            and (head is None or _same_head(head, pull))
        ]
        return self._page(
            call, [pull_json(self.url, pull, "pull-request-simple") for pull in found]
        )

    def pulls_list_files(self, call: Call) -> Reply:
        pull = self._pull(call, "pull_number")
        entry = blank("diff-entry") | {"sha": "0" * 40}
        entries = [
            entry
            | {"filename": name.removeprefix("-")}
            | {"status": "removed" if name.startswith("-") else "modified"}
            for name in pull.files
        ]
        return self._page(call, entries)

    def repos_get(self, call: Call) -> Reply:
        known = {repository for repository, _ in self.pulls} | self.bare.keys()
        if call.repository not in known:
            raise Refusal(404, "Not Found")
        return Reply(200, repository_json(call.repository, "full-repository"))

    def repos_get_collaborator_permission_level(self, call: Call) -> Reply:
        login = call.variables["username"]
        level = self.permissions.get((call.repository, login), "read")
        known = {"permission": level, "role_name": level, "user": None}
        return Reply(200, blank("repository-collaborator-permission") | known)

    def users_get_authenticated(self, call: Call) -> Reply:
        if call.login.endswith("[bot]"):
            raise Refusal(403, "Resource not accessible by integration")
        return Reply(
            200, blank("public-user") | user_json(call.login) | {"user_view_type": "public"}
        )

    # ------------------------------------------------------------ checks and statuses

    def checks_create(self, call: Call) -> Reply:
        run: Json = blank("check-run") | {
            "id": self.next_id(),
            "repository": call.repository,
            "status": "queued",
            "output": blank("check-run")["output"],
        }
        self.check_runs.append(run)
        return Reply(201, check_json(run, call.body))

    def checks_update(self, call: Call) -> Reply:
        return Reply(200, check_json(self._check_run(call), call.body))

    def checks_get(self, call: Call) -> Reply:
        return Reply(200, check_json(self._check_run(call), {}))

    def repos_create_commit_status(self, call: Call) -> Reply:
        status: Json = blank("status") | call.body
        status |= {"id": self.next_id(), "creator": user_json(call.login)}
        self.statuses.append(status | {"sha": call.variables["sha"]})
        return Reply(201, status)

    # ------------------------------------------------------------ what tests put in

    def add_pull(
        self,
        repository: str,
        number: int,
        *,
        title: str = "Adapter",
        author: str = "alice",
        head_ref: str = "adapter",
        head_sha: str = "b" * 40,
        head_repository: str | None = None,
        base_ref: str = "main",
        base_sha: str = "a" * 40,
        files: Sequence[str] = (),
    ) -> Pull:
        """Open a pull request; a repository exists once it has one. It removes a `-file`."""
        head_repository = head_repository or repository
        pull = Pull(
            repository=repository,
            number=number,
            title=title,
            author=author,
            head_ref=head_ref,
            head_sha=head_sha,
            head_repository=head_repository,
            base_ref=base_ref,
            base_sha=base_sha,
            files=tuple(files),
        )
        with self.lock:
            self.pulls[repository, number] = pull
        return pull

    def add_artifact(
        self, repository: str, run: int, name: str, content: bytes, claimed_size: int | None = None
    ) -> StoredArtifact:
        """Upload `content` from a run, whatever it is."""
        size = len(content) if claimed_size is None else claimed_size
        artifact = StoredArtifact(self.next_id(), repository, run, name, content, size)
        self.artifacts[artifact.id] = artifact
        return artifact

    def add_comment(self, repository: str, number: int, body: str, *, author: str) -> Comment:
        """Put a comment there as `author`, without a request."""
        with self.lock:
            now = _now()
            comment = Comment(self.next_id(), repository, number, author, body, now, now)
            self.all_comments[comment.id] = comment
            return comment

    # ------------------------------------------------------------ look-ups and shapes

    def _pull(self, call: Call, variable: str) -> Pull:
        try:
            return self.live(self.pulls[call.repository, call.number(variable)])
        except KeyError:
            raise Refusal(404, "Not Found") from None

    def _comment(self, call: Call) -> Comment:
        comment = self.all_comments.get(call.number("comment_id"))
        if comment is None or comment.repository != call.repository:
            raise Refusal(404, "Not Found")
        return comment

    def _check_run(self, call: Call) -> Json:
        for run in self.check_runs:
            if (run["repository"], run["id"]) == (call.repository, call.number("check_run_id")):
                return run
        raise Refusal(404, "Not Found")

    def _page(self, call: Call, items: list[Any]) -> Reply:
        """One page and its Link header, as GitHub counts: 30 a page, 100 at most."""
        size = min(int(call.query.get("per_page", 30)), 100)
        page = int(call.query.get("page", 1))
        last = max(1, -(-len(items) // size))
        relations = {"prev": page - 1, "next": page + 1, "last": last, "first": 1}
        wanted = [
            *(["prev", "first"] if page > 1 else []),
            *(["next", "last"] if page < last else []),
        ]
        links = ", ".join(
            f"<{self.url}{call.path}?{urlencode({**call.query, 'page': relations[name]})}>; "
            f'rel="{name}"'
            for name in wanted
        )
        chunk = items[(page - 1) * size : page * size]
        return Reply(200, chunk, {"Link": links} if links else {})


def _same_head(head: str, pull: Pull) -> bool:
    owner, _, ref = head.partition(":")
    return (owner.casefold(), ref) == (
        pull.head_repository.split("/")[0].casefold(),
        pull.head_ref,
    )


def _body(body: Json) -> str:
    text: str = body["body"]
    if not text.strip() or len(text) > BODY_LIMIT:
        reason = (
            "can't be blank" if not text.strip() else "is too long (maximum is 65536 characters)"
        )
        errors = [{"resource": "IssueComment", "code": "unprocessable", "field": "data"}]
        raise Refusal(422, f"Validation Failed: Body {reason}", errors=errors)
    return text


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
