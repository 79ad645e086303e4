"""Pull requests that are opened, edited, labelled and sent to reviewers."""

from __future__ import annotations

import threading
from typing import Any

from tests.github_server.records import Call, Pull, Refusal, Reply
from tests.github_server.repositories import Repositories
from tests.github_server.shapes import blank, pull_json, user_json


class Proposals(Repositories):
    """A mixin of `World`: `pulls/create`, `pulls/update`, reviewers and reviews."""

    lock: threading.RLock
    pulls: dict[tuple[str, int], Pull]
    reviews: dict[tuple[str, int], list[str]]
    collaborators: set[str]
    may_open: bool
    drafts_allowed: bool

    def pulls_create(self, call: Call) -> Reply:
        body = call.body
        if not self.may_open:
            raise Refusal(
                403, "GitHub Actions is not permitted to create or approve pull requests."
            )
        if body.get("draft") and not self.drafts_allowed:
            raise Refusal(422, "Draft pull requests are not supported in this repository.")
        base, head = (self.branch(call.repository, body[side]) for side in ("base", "head"))
        errors: list[dict[str, Any]] = [
            {"resource": "PullRequest", "field": side, "code": "invalid"}
            for side, sha in (("base", base), ("head", head))
            if sha is None
        ]
        if any(
            self._is(pull, call.repository, body["head"], body["base"])
            for pull in self.open_pulls()
        ):
            said = f"A pull request already exists for {call.variables['owner']}:{body['head']}."
            errors.append({"resource": "PullRequest", "code": "custom", "message": said})
        elif base == head:
            said = f"No commits between {body['base']} and {body['head']}"
            errors.append({"resource": "PullRequest", "code": "custom", "message": said})
        if len(body.get("body") or "") > 65536:
            errors.append(
                {"resource": "PullRequest", "code": "custom", "message": "body is too long"}
            )
        if errors:
            raise Refusal(422, "Validation Failed", errors=errors)
        number = 1 + max((n for _, n in self.pulls), default=0)
        pull = Pull(
            repository=call.repository,
            number=number,
            title=body["title"],
            author=call.login,
            head_ref=body["head"],
            head_sha=head or "",
            head_repository=call.repository,
            base_ref=body["base"],
            base_sha=base or "",
            files=(),
            body=body.get("body") or "",
            draft=bool(body.get("draft")),
        )
        self.pulls[call.repository, number] = pull
        return Reply(201, pull_json(self.url, pull, "pull-request"))

    def pulls_update(self, call: Call) -> Reply:
        pull = self._one(call)
        pull.title = call.body.get("title", pull.title)
        pull.body = call.body.get("body", pull.body)
        pull.state = call.body.get("state", pull.state)
        return Reply(200, pull_json(self.url, pull, "pull-request"))

    def pulls_request_reviewers(self, call: Call) -> Reply:
        pull = self._one(call)
        known = {name.casefold(): name for name in (*self.collaborators, pull.author)}
        wanted = [known.get(name.casefold(), name) for name in call.body.get("reviewers", [])]
        if set(wanted) - self.collaborators:
            raise Refusal(
                422, "Reviews may only be requested from collaborators. One or more of the users "
                "or teams you specified is not a collaborator",
            )  # fmt: skip
        if pull.author in wanted:
            raise Refusal(422, "Review cannot be requested from pull request author.")
        pull.reviewers += [name for name in wanted if name not in pull.reviewers]
        teams = call.body.get("team_reviewers", [])
        pull.teams += [name for name in teams if name not in pull.teams]
        return Reply(201, pull_json(self.url, pull, "pull-request-simple"))

    def pulls_list_reviews(self, call: Call) -> Reply:
        pull = self._one(call)
        shape = blank("pull-request-review")
        written = self.reviews.get((pull.repository, pull.number), [])
        return Reply(
            200, [shape | {"user": user_json(name), "state": "APPROVED"} for name in written]
        )

    def live(self, pull: Pull) -> Pull:
        """The pull request with the commits that its branches have now."""
        if pull.repository in self.bare:
            pull.head_sha = self.branch(pull.repository, pull.head_ref) or pull.head_sha
            pull.base_sha = self.branch(pull.repository, pull.base_ref) or pull.base_sha
        return pull

    def open_pulls(self) -> list[Pull]:
        return [pull for pull in self.pulls.values() if pull.state == "open"]

    def _is(self, pull: Pull, repository: str, head: str, base: str) -> bool:
        there = (pull.repository, pull.head_repository, pull.head_ref, pull.base_ref)
        return there == (repository, repository, head, base)

    def _one(self, call: Call) -> Pull:
        try:
            return self.live(self.pulls[call.repository, call.number("pull_number")])
        except KeyError:
            raise Refusal(404, "Not Found") from None
