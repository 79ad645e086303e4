"""The Git Data API over real bare repositories: what it writes, `git` itself can clone."""

from __future__ import annotations

import base64
import os
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

from tests.github_server.records import Call, Json, Refusal, Reply
from tests.github_server.shapes import blank, node_id, user_json

ZERO = "0" * 40


class Repositories:
    """A mixin of `World`: operations `git/*` and the comparison of commits."""

    url: str

    def __init__(self) -> None:
        self.bare: dict[str, Path] = {}

    def git(
        self,
        repository: str,
        *arguments: str,
        feed: bytes = b"",
        check: bool = True,
        **environment: str,
    ) -> bytes:
        """Run git in one of the repositories."""
        if repository not in self.bare:
            raise Refusal(404, "Not Found")
        who = {
            f"GIT_{role}_{field}": value
            for role in ("AUTHOR", "COMMITTER")
            for field, value in (("NAME", "bot"), ("EMAIL", "bot@github.invalid"))
        }
        done = subprocess.run(
            ["git", "-C", str(self.bare[repository]), *arguments],
            input=feed,
            capture_output=True,
            env={**os.environ, **who, **environment},
            check=False,
        )
        if done.returncode and check:
            raise Refusal(422, done.stderr.decode(errors="replace").strip() or "refused")
        return done.stdout if not done.returncode else b""

    def branch(self, repository: str, name: str) -> str | None:
        """The commit of a branch."""
        found = self.git(
            repository, "rev-parse", "-q", "--verify", f"refs/heads/{name}", check=False
        )
        return found.decode().strip() or None

    # ------------------------------------------------------------ objects

    def git_create_blob(self, call: Call) -> Reply:
        content = call.body["content"]
        raw = (
            base64.b64decode(content) if call.body.get("encoding") == "base64" else content.encode()
        )
        sha = self.git(call.repository, "hash-object", "-w", "--stdin", feed=raw).decode().strip()
        return Reply(201, {"sha": sha, "url": f"{self.url}{call.path}/{sha}"})

    def git_get_blob(self, call: Call) -> Reply:
        sha = call.variables["file_sha"]
        raw = self._object(call, "cat-file", "blob", sha)
        known = {"sha": sha, "size": len(raw), "encoding": "base64"}
        return Reply(200, blank("blob") | known | {"content": base64.b64encode(raw).decode()})

    def git_get_tree(self, call: Call) -> Reply:
        return Reply(200, self._tree(call, call.variables["tree_sha"]))

    def git_create_tree(self, call: Call) -> Reply:
        index = self.bare[call.repository] / f"index-{id(call)}"
        feed = ""
        for entry in call.body["tree"]:
            mode, sha = (entry["mode"], entry["sha"]) if entry.get("sha") else ("0", ZERO)
            feed += f"{mode} {sha}\t{entry['path']}\n"
        try:
            scoped = partial(self.git, call.repository, GIT_INDEX_FILE=str(index))
            if call.body.get("base_tree"):
                scoped("read-tree", call.body["base_tree"])
            scoped("update-index", "--add", "--index-info", feed=feed.encode())
            sha = scoped("write-tree").decode().strip()
        finally:
            index.unlink(missing_ok=True)
        return Reply(201, self._tree(call, sha))

    def git_create_commit(self, call: Call) -> Reply:
        parents = [part for parent in call.body["parents"] for part in ("-p", parent)]
        sha = self.git(
            call.repository, "commit-tree", call.body["tree"], *parents, "-F", "-",
            feed=call.body["message"].encode(),
        ).decode().strip()  # fmt: skip
        return Reply(201, self._commit(call, sha))

    def git_get_commit(self, call: Call) -> Reply:
        return Reply(200, self._commit(call, call.variables["commit_sha"]))

    # ------------------------------------------------------------ refs

    def git_get_ref(self, call: Call) -> Reply:
        return Reply(200, self._ref(call, call.variables["ref"]))

    def git_create_ref(self, call: Call) -> Reply:
        name, sha = call.body["ref"], call.body["sha"]
        if self.git(call.repository, "rev-parse", "-q", "--verify", name, check=False):
            raise Refusal(422, "Reference already exists")
        self.git(call.repository, "check-ref-format", name)
        self.git(call.repository, "update-ref", name, sha, ZERO)
        return Reply(201, self._ref(call, name.removeprefix("refs/")))

    def git_update_ref(self, call: Call) -> Reply:
        name, sha = f"refs/{call.variables['ref']}", call.body["sha"]
        old = self._ref(call, call.variables["ref"])["object"]["sha"]
        known = self.git(call.repository, "merge-base", old, sha, check=False).decode().strip()
        if not call.body.get("force") and known != old:
            raise Refusal(422, "Update is not a fast forward")
        self.git(call.repository, "update-ref", name, sha, old)
        return Reply(200, self._ref(call, call.variables["ref"]))

    def git_delete_ref(self, call: Call) -> Reply:
        self._ref(call, call.variables["ref"], missing=422)
        self.git(call.repository, "update-ref", "-d", f"refs/{call.variables['ref']}")
        return Reply(204)

    def update_refs(self, given: Json) -> Reply:
        """GraphQL's `updateRefs` of one branch: only from where it is said to be."""
        repository = next((name for name in self.bare if node_id(name) == given["repository"]), "")
        refusal: Json | None = None
        try:
            if given["new"] == ZERO:
                self.git(repository, "update-ref", "-d", given["name"], given["old"])
            else:
                self.git(repository, "update-ref", given["name"], given["new"], given["old"])
        except Refusal as refused:
            missing = refused.reply.status == 404
            kind = "NOT_FOUND" if missing else "UNPROCESSABLE"
            refusal = {"type": kind, "path": ["updateRefs"], "message": str(refused)}
        if refusal:
            return Reply(200, {"data": {"updateRefs": None}, "errors": [refusal]})
        return Reply(200, {"data": {"updateRefs": {"clientMutationId": None}}})

    def repos_compare_commits(self, call: Call) -> Reply:
        base, head = (
            self.git(call.repository, "rev-parse", f"{call.variables[side]}^{{commit}}")
            .decode()
            .strip()
            for side in ("base", "head")
        )
        merge_base = self.git(call.repository, "merge-base", base, head).decode().strip()
        shape = blank("commit-comparison")
        people = {role: user_json("bot") for role in ("author", "committer")}
        commit = blank("commit") | people
        return Reply(
            200,
            shape
            | {
                "base_commit": commit | {"sha": base},
                "merge_base_commit": commit | {"sha": merge_base},
            },
        )

    # ------------------------------------------------------------ shapes

    def _object(self, call: Call, *arguments: str) -> bytes:
        try:
            return self.git(call.repository, *arguments)
        except Refusal as refusal:
            raise Refusal(404, "Not Found") from refusal

    def _tree(self, call: Call, sha: str) -> Json:
        resolved = self._object(call, "rev-parse", f"{sha}^{{tree}}").decode().strip()
        entries = []
        for line in self._object(call, "ls-tree", "-z", "-l", resolved).split(b"\0"):
            if line:
                head, _, name = line.partition(b"\t")
                mode, kind, object_id, size = head.decode().split()
                entry: dict[str, Any] = {"path": name.decode(), "mode": mode, "type": kind}
                entry |= {"sha": object_id, "url": f"{self.url}/x"}
                entries.append(entry | ({"size": int(size)} if size != "-" else {}))
        return blank("git-tree") | {"sha": resolved, "tree": entries, "truncated": False}

    def _commit(self, call: Call, sha: str) -> Json:
        raw = self._object(call, "cat-file", "commit", sha).decode()
        head, _, message = raw.partition("\n\n")
        lines = [line.split(" ", 1) for line in head.split("\n")]
        parents = [value for name, value in lines if name == "parent"]
        (tree,) = (value for name, value in lines if name == "tree")
        return blank("git-commit") | {
            "sha": sha,
            "message": message.rstrip("\n"),
            "tree": {"sha": tree, "url": f"{self.url}/x"},
            "parents": [{"sha": p, "url": f"{self.url}/x", "html_url": "x"} for p in parents],
        }

    def _ref(self, call: Call, name: str, missing: int = 404) -> Json:
        found = self.git(
            call.repository, "rev-parse", "-q", "--verify", f"refs/{name}", check=False
        )
        if not found:
            raise Refusal(missing, "Not Found" if missing == 404 else "Reference does not exist")
        return blank("git-ref") | {
            "ref": f"refs/{name}",
            "url": f"{self.url}/repos/{call.repository}/git/refs/{name}",
            "object": {"type": "commit", "sha": found.decode().strip(), "url": f"{self.url}/x"},
        }
