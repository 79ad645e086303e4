"""What workflow runs leave (artifacts, checks), Apps and their tokens, folded comments."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import jwt

from tests.github_server.records import Call, Comment, Json, Refusal, Reply, Token
from tests.github_server.shapes import blank, check_json, user_json


@dataclass
class StoredArtifact:
    id: int
    repository: str
    run: int
    name: str
    content: bytes
    claimed_size: int
    expired: bool = False


@dataclass(frozen=True)
class App:
    """A GitHub App, known by its public key, and the token that its installation is given."""

    id: str
    public_key: str
    token: str
    login: str
    more: dict[str, str] = field(default_factory=dict)

    @property
    def permissions(self) -> dict[str, str]:
        """What it may do here: to comment and to check, and `more`."""
        return {"checks": "write", "issues": "write", "pull_requests": "write"} | self.more


class Runs:
    """A mixin of `World`."""

    url: str
    lock: threading.RLock
    check_runs: list[Json]
    all_comments: dict[int, Comment]
    artifacts: dict[int, StoredArtifact]
    apps: list[App]
    minted: dict[str, Token]
    minimized: list[int]

    def actions_list_workflow_run_artifacts(self, call: Call) -> Reply:
        found = [
            blank("artifact")
            | {
                "id": a.id,
                "name": a.name,
                "size_in_bytes": a.claimed_size,
                "expired": a.expired,
                "archive_download_url": self._artifact_url(a),
            }
            for a in self.artifacts.values()
            if (a.repository, a.run) == (call.repository, call.number("run_id"))
        ]
        size, page = int(call.query.get("per_page", 30)), int(call.query.get("page", 1))
        shown = found[(page - 1) * size : page * size]
        return Reply(200, {"total_count": len(found), "artifacts": shown})

    def actions_download_artifact(self, call: Call) -> Reply:
        artifact = self.artifacts.get(call.number("artifact_id"))
        if artifact is None or artifact.repository != call.repository:
            raise Refusal(404, "Not Found")
        if artifact.expired:
            raise Refusal(410, "Artifact has expired")
        place = f"{self.url}/_store/{artifact.id}?sig=s1gned"
        return Reply(302, None, {"Location": place})

    def stored(self, path: str, headers: dict[str, str]) -> Reply:
        """What the store behind the redirect answers; it must not be shown the token."""
        if "authorization" in headers:
            return Reply(400, {"message": "the store was shown GitHub's token"})
        artifact = self.artifacts.get(int(path.rpartition("/")[2]))
        return Reply(200, artifact.content) if artifact else Reply(404, {"message": "no blob"})

    def checks_list_for_ref(self, call: Call) -> Reply:
        name = call.query.get("check_name")
        found = [
            check_json(run, {})
            for run in self.check_runs
            if run["head_sha"] == call.variables["ref"] and name in (None, run["name"])
        ]
        return Reply(200, {"total_count": len(found), "check_runs": found})

    def apps_get_repo_installation(self, call: Call) -> Reply:
        app = next(app for app in self.apps if f"app:{app.id}" == call.login)
        shape = blank("installation") | {"id": 77, "account": user_json("octo")}
        return Reply(200, shape | {"permissions": app.permissions})

    def apps_create_installation_access_token(self, call: Call) -> Reply:
        app = next(app for app in self.apps if f"app:{app.id}" == call.login)
        asked = call.body.get("permissions", {})
        if any(app.permissions.get(name) not in (level, "write") for name, level in asked.items()):
            return Reply(422, {"message": "The permissions requested are not granted"})
        self.minted[app.token] = Token(app.login, app.login.removesuffix("[bot]"))
        shape = {"token": app.token, "expires_at": "2030-01-01T00:00:00Z"}
        return Reply(201, shape | {"permissions": asked})

    def app_of(self, token: str) -> Token | None:
        """The App that signed this token; None when none of ours did."""
        for app in self.apps:
            try:
                claims = jwt.decode(token, app.public_key, algorithms=["RS256"], issuer=app.id)
            except jwt.PyJWTError:
                continue
            return Token(f"app:{claims['iss']}", "app")
        return None

    def minimize(self, variables: Any) -> Reply:
        number = int(str(variables["id"]).removeprefix("IC_"))
        if number not in self.all_comments:
            said = f"Could not resolve to a node with the global id of '{variables['id']}'"
            missing = {"type": "NOT_FOUND", "path": ["minimizeComment"], "message": said}
            return Reply(200, {"data": {"minimizeComment": None}, "errors": [missing]})
        self.minimized.append(number)
        return Reply(
            200, {"data": {"minimizeComment": {"minimizedComment": {"isMinimized": True}}}}
        )

    def _artifact_url(self, artifact: StoredArtifact) -> str:
        return f"{self.url}/repos/{artifact.repository}/actions/artifacts/{artifact.id}/zip"
