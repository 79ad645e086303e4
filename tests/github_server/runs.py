"""What workflow runs leave (artifacts, checks), Apps and their tokens, folded comments."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
    """A GitHub App, known by its public key, and the tokens that its installation is given: the
    first is `token`, the next one `token` with a 2, and so on.

    Attributes:
        permissions: what it may do where it is installed.
        life: of a token.
    """

    id: str
    public_key: str
    token: str
    login: str
    permissions: Mapping[str, str]
    repository: str = "octo/adapters"
    suspended: bool = False
    life: timedelta = timedelta(hours=1)


# What takes which permission, by the beginnings of operations.
_WRITES = {
    "contents": ("git/create", "git/update", "git/delete"),
    "pull_requests": ("pulls/create", "pulls/update", "pulls/request", "issues/"),
    "checks": ("checks/create", "checks/update"),
    "statuses": ("repos/create-commit-status",),
}
_READS = {"pull_requests": ("pulls/list", "pulls/get")}


class Runs:
    """A mixin of `World`."""

    url: str
    lock: threading.RLock
    check_runs: list[Json]
    all_comments: dict[int, Comment]
    artifacts: dict[int, StoredArtifact]
    apps: list[App]
    minted: dict[str, tuple[Token, datetime]]
    ahead: timedelta
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
        app = self._signer(call)
        if call.repository != app.repository:
            raise Refusal(404, "Not Found")
        shape = blank("installation") | {"id": 77, "account": user_json("octo")}
        shape |= {"html_url": f"{self.url}/settings/installations/77"}
        shape |= {"suspended_at": "2026-01-01T00:00:00Z" if app.suspended else None}
        return Reply(200, shape | {"permissions": dict(app.permissions)})

    def apps_create_installation_access_token(self, call: Call) -> Reply:
        app = self._signer(call)
        if app.suspended:
            raise Refusal(403, "This installation has been suspended")
        asked = call.body.get("permissions", {})
        if any(app.permissions.get(name) not in (level, "write") for name, level in asked.items()):
            raise Refusal(422, "The permissions requested are not granted to this installation.")
        denied = [ops for name, ops in _WRITES.items() if asked.get(name) != "write"]
        denied += [ops for name, ops in _READS.items() if name not in asked]
        bot = Token(
            app.login,
            app.login.removesuffix("[bot]"),
            forbidden=tuple(op for o in denied for op in o),
        )
        made = sum(name.startswith(app.token) for name in self.minted)
        name = f"{app.token}{made + 1}" if made else app.token
        until = (self.now + app.life).replace(microsecond=0)
        self.minted[name] = bot, until
        shape = {"token": name, "expires_at": until.strftime("%Y-%m-%dT%H:%M:%SZ")}
        return Reply(201, shape | {"permissions": asked})

    @property
    def now(self) -> datetime:
        """By GitHub's clock."""
        return datetime.now(UTC) + self.ahead

    def minted_as(self, token: str) -> Token | None:
        """Whom an App's token speaks for, while it lasts."""
        known, until = self.minted.get(token, (None, self.now))
        return known if self.now < until else None

    def app_of(self, token: str) -> Token:
        """The App that signed this.

        Raises:
            Refusal: none of ours did, or not for this time.
        """
        try:
            said = jwt.decode(token, options={"verify_signature": False})
            app = next((app for app in self.apps if app.id == said["iss"]), None)
            if app is None:
                raise Refusal(404, "Integration not found")
            ignored = {f"verify_{claim}": False for claim in ("exp", "iat", "nbf")}
            jwt.decode(token, app.public_key, algorithms=["RS256"], options=ignored)
        except jwt.PyJWTError:
            raise Refusal(401, "A JSON web token could not be decoded") from None
        now = self.now.timestamp()
        if said["exp"] > now + 600:
            raise Refusal(401, "'Expiration time' claim ('exp') is too far in the future")
        if not said["iat"] <= now < said["exp"]:
            raise Refusal(401, "'Issued at' claim ('iat') must be an Integer representing the time")
        return Token(f"app:{app.id}", "app")

    def _signer(self, call: Call) -> App:
        return next(app for app in self.apps if f"app:{app.id}" == call.login)

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
