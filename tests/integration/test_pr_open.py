"""`adapterbot pr open` against a GitHub that keeps real repositories, read back with real git."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from adapterbot.commands import pr_open
from adapterbot.commands.origin import beside_origin, repository_at
from adapterbot.commands.pr import EvidenceOptions, Rendered, run
from adapterbot.commands.pr_open import OpenOptions
from adapterbot.context import server_url
from adapterbot.errors import AdapterbotError, GitHubFailure, InputError, OurFailure
from adapterbot.gh import branches, client, lfs
from adapterbot.gh.access import client_for
from adapterbot.gh.proposal import Action
from adapterbot.gh.refs import BranchMovedError
from adapterbot.gh.remote import Remote
from adapterbot.marker import marker
from tests import command_line, programs
from tests.example import commit, git
from tests.github_server import Fault, GitHubServer
from tests.listening import listening

ROOT = Path(__file__).parent.parent.parent
ADAPTER = ROOT / "examples" / "tiny" / "adapters" / "dates"
REPO = "octo/adapters"
HEAD = "adapterbot/adapters-dates"
NO_WAIT = client.Patience(sleep=lambda _: None)


@dataclass
class Place:
    """A checkout, the bare repository that it came from, and the GitHub in front of that."""

    server: GitHubServer
    bare: Path
    checkout: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "GITHUB_TOKEN": "t0ken",
            "GITHUB_API_URL": self.server.url,
            "GITHUB_SERVER_URL": f"file://{self.bare.parent.parent}",
            "GITHUB_REPOSITORY": REPO,
        }

    @property
    def adapter(self) -> Path:
        return self.checkout / "adapters" / "dates"

    def options(self, **more: Any) -> OpenOptions:
        return OpenOptions(
            **{"title": "Better dates", "adapter": self.adapter, "base": "main", **more}
        )

    def open(self, **more: Any) -> Any:
        return pr_open.run(self.options(**more), self.environment).outcome

    def retrain(self, note: str = "again") -> None:
        """Another README is enough of a new adapter."""
        (self.adapter / "README.md").write_text(note)

    def at(self, ref: str, path: str) -> str:
        return git(self.bare, "show", f"{ref}:{path}")

    def names(self, ref: str, folder: str = "adapters/dates") -> set[str]:
        return set(git(self.bare, "ls-tree", "--name-only", f"{ref}:{folder}").split())

    @property
    def pull(self) -> Any:
        (pull,) = self.server.world.pulls.values()
        return pull


@pytest.fixture(scope="module")
def mould(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare repository and a checkout of it, made once and copied for each test."""
    folder = tmp_path_factory.mktemp("mould")
    bare, checkout = folder / "hub" / "octo" / "adapters.git", folder / "checkout"
    bare.mkdir(parents=True)
    git(bare, "init", "-q", "--bare", "-b", "main", "--template=")
    git(bare, "config", "uploadpack.allowFilter", "true")
    git(folder, "clone", "-q", "--template=", str(bare), str(checkout))
    git(checkout, "checkout", "-q", "-b", "main")
    shutil.copytree(ADAPTER, checkout / "adapters" / "dates")
    (checkout / "adapters" / "dates" / "notes.txt").write_text("old")
    (checkout / "adapters" / "dates" / ".hidden").write_text("stays")
    (checkout / "soup.lock").write_text("{}\n")
    commit(checkout, "first")
    git(checkout, "push", "-q", "origin", "main")
    git(checkout, "remote", "set-url", "origin", "../hub/octo/adapters.git")
    return folder


@pytest.fixture
def place(mould: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    shutil.copytree(mould, tmp_path, dirs_exist_ok=True, symlinks=True)
    bare, checkout = tmp_path / "hub" / "octo" / "adapters.git", tmp_path / "checkout"
    monkeypatch.chdir(checkout)
    real = client.connect
    monkeypatch.setattr(
        client,
        "connect",
        lambda token, url, **more: real(token, url, **{**more, "patience": NO_WAIT, "timeout": 5}),
    )
    with GitHubServer() as server:
        server.add_token("t0ken")
        server.add_repository(REPO, bare)
        server.world.collaborators |= {"alice", "bob"}
        yield Place(server, bare, checkout)
        assert server.violations == []


# ---------------------------------------------------------------- open, update, leave alone


def test_a_lock_brings_the_folder_that_explains_it(place: Place) -> None:
    """Without it the gate would find the lock drifted from weights that nothing records."""
    (place.checkout / "soup.lock").write_text('{"closure_sha": "x"}\n')
    (place.checkout / "soup.lock.d").mkdir()
    (place.checkout / "soup.lock.d" / "pinned.json").write_text("{}\n")
    outcome = place.open(include=("soup.lock",))
    changed = git(place.bare, "diff", "--name-only", "main", outcome.commit).splitlines()
    assert changed == ["soup.lock", "soup.lock.d/pinned.json"]


def test_a_pull_request_holds_the_adapter_and_says_what_it_does(
    place: Place, tmp_path: Path
) -> None:
    place.retrain()
    (place.adapter / "notes.txt").unlink()
    (place.adapter / "optimizer.pt").write_bytes(b"\x80\x04")
    (place.checkout / "soup.lock").write_text('{"closure_sha": "x"}\n')
    (place.checkout / "unrelated.txt").write_text("stays here")
    deltas = tmp_path / "eval.json"
    deltas.write_text(json.dumps([{"metric": "retry_rate", "baseline": 0.121, "candidate": 0.046}]))
    outcome = place.open(
        include=("soup.lock",), evidence=EvidenceOptions(eval=deltas),
        labels=("adapter",), reviewers=("alice", "octo/ml"), draft=True,
    )  # fmt: skip
    assert outcome.action is Action.OPENED
    assert outcome.url == f"{place.server.url}/{REPO}/pull/{outcome.number}"
    base = git(place.bare, "rev-parse", "main")
    assert outcome.base_sha == base
    assert git(place.bare, "rev-parse", HEAD) == outcome.commit
    assert git(place.bare, "rev-parse", f"{HEAD}^") == base
    changed = git(place.bare, "diff", "--name-status", "main", HEAD).split("\n")
    assert changed == ["A\tadapters/dates/README.md", "D\tadapters/dates/notes.txt", "M\tsoup.lock"]
    assert place.at(HEAD, "adapters/dates/.hidden") == "stays"
    pull = place.pull
    assert (pull.title, pull.base_ref, pull.head_ref, pull.draft) == (
        "Better dates",
        "main",
        HEAD,
        True,
    )
    assert (pull.labels, pull.reviewers, pull.teams) == (["adapter"], ["alice"], ["ml"])
    assert pull.body.startswith(marker("pr:adapters-dates") + "\n")
    assert base in pull.body
    assert "12.1% | 4.6% | −7.5%" in pull.body
    assert "adapter_model.safetensors" in pull.body
    assert "pickles left out: " in pull.body.replace("`", "")
    git(place.bare, "fsck", "--strict")


def test_only_what_differs_is_uploaded(place: Place) -> None:
    place.retrain()
    place.open()
    (blob,) = place.server.sent("POST", "/git/blobs$")
    assert len(blob.body["content"]) < 100  # the README, not the weights


def test_running_it_again_changes_nothing_and_sends_no_write(place: Place) -> None:
    place.retrain()
    first = place.open(labels=("adapter",), reviewers=("alice",))
    before = len(place.server.requests)
    again = place.open(labels=("adapter",), reviewers=("alice",))
    assert (again.action, again.number, again.commit) == (
        Action.UNCHANGED,
        first.number,
        first.commit,
    )
    assert {r.method for r in place.server.requests[before:]} == {"GET"}


def test_a_new_adapter_updates_the_same_pull_request(place: Place) -> None:
    place.retrain("one")
    first = place.open()
    # The base moves on, and a person pushes a fix of their own to the branch.
    (place.checkout / "other.txt").write_text("x")
    git(place.checkout, "add", "other.txt")
    git(place.checkout, "commit", "-qm", "other")
    git(place.checkout, "push", "-q", "origin", "main")
    git(place.checkout, "fetch", "-q", "origin")
    work = place.checkout.parent / "person"
    git(place.checkout.parent, "clone", "-q", "-b", HEAD, str(place.bare), str(work))
    (work / "fix.txt").write_text("by hand")
    commit(work, "by hand")
    git(work, "push", "-q", "origin", HEAD)
    pull = place.pull
    pull.body = f"Look here first.\r\n\r\n{pull.body}\r\nand here last"
    pull.title = "Renamed by hand"
    place.retrain("two")
    second = place.open(title="Even better dates")
    assert (second.action, second.number) == (Action.UPDATED, first.number)
    assert second.base_sha == first.base_sha  # where the branch left the base, not its new tip
    assert place.at(HEAD, "adapters/dates/README.md") == "two"
    assert place.at(HEAD, "fix.txt") == "by hand"
    assert git(place.bare, "merge-base", "--is-ancestor", first.commit, HEAD) == ""
    assert pull.title == "Even better dates"
    assert pull.body.startswith("Look here first.\n\n<!--")
    assert pull.body.endswith("\nand here last")
    assert pull.body.count(marker("pr:adapters-dates")) == 1


def test_what_people_wrote_keeps_its_room_in_a_full_body(place: Place, tmp_path: Path) -> None:
    samples = tmp_path / "samples.json"
    sample = {"prompt": "p" * 900, "baseline_output": "b" * 900, "candidate_output": "c" * 900}
    samples.write_text(json.dumps([sample] * 256))
    place.retrain("one")
    place.open(evidence=EvidenceOptions(samples=samples))
    essay = "word " * 8000
    place.pull.body = essay + "\n" + place.pull.body
    place.retrain("two")
    assert place.open(evidence=EvidenceOptions(samples=samples)).action is Action.UPDATED
    assert place.pull.body.startswith(essay)
    assert "Left out to fit" in place.pull.body
    assert len(place.pull.body) <= 65_536
    place.pull.body = "word " * 12_950 + "\n" + marker("pr:adapters-dates")
    with pytest.raises(InputError, match="no room left"):
        place.open()


def test_an_adapter_that_the_base_holds_already_opens_nothing(place: Place) -> None:
    outcome = place.open()
    assert (outcome.action, outcome.url) == (Action.NOTHING, None)
    assert place.server.world.pulls == {}
    assert place.server.sent("POST") == []


def test_an_adapter_from_elsewhere_goes_where_it_is_told(place: Place, tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    shutil.copytree(ADAPTER, merged)
    with pytest.raises(InputError, match="outside the repository"):
        place.open(adapter=merged)
    outcome = place.open(adapter=merged, path="adapters/deep/merged")
    assert outcome.action is Action.OPENED
    assert place.names("adapterbot/adapters-deep-merged", "adapters/deep/merged") == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_after_a_merge_the_old_branch_starts_over(place: Place) -> None:
    place.retrain("one")
    first = place.open()
    place.pull.state = "closed"
    place.retrain("two")
    second = place.open()
    assert second.action is Action.OPENED
    assert second.number != first.number
    assert git(place.bare, "rev-parse", f"{HEAD}^") == git(place.bare, "rev-parse", "main")


def test_reviewers_are_asked_again_after_new_weights_only(place: Place) -> None:
    place.retrain("one")
    number = place.open(reviewers=("alice",)).number
    place.pull.reviewers.clear()  # GitHub takes them off the list when they have reviewed
    place.server.world.reviews[REPO, number] = ["alice"]
    place.open(reviewers=("alice",))
    assert place.pull.reviewers == []
    place.open(reviewers=("Alice", "bob"))
    assert place.pull.reviewers == ["bob"]
    place.retrain("two")
    place.open(reviewers=("alice", "bob"))
    assert set(place.pull.reviewers) == {"alice", "bob"}


# ---------------------------------------------------------------- whose branch it is


def test_a_branch_of_somebody_else_is_not_touched(place: Place) -> None:
    git(place.checkout, "checkout", "-q", "-b", HEAD)
    git(place.checkout, "commit", "-q", "--allow-empty", "-m", "Adapterbot-Key: pr:other")
    git(place.checkout, "push", "-q", "origin", HEAD)
    place.retrain()
    with pytest.raises(InputError, match="exists, and is not ours"):
        place.open()
    assert place.server.sent("POST") == place.server.sent("PATCH") == []
    assert place.open(branch="mine").action is Action.OPENED


def test_another_base_does_not_take_the_branch_from_under_an_open_pull_request(
    place: Place,
) -> None:
    git(place.checkout, "push", "-q", "origin", "main:release")
    place.retrain("one")
    first = place.open()
    place.retrain("two")
    with pytest.raises(InputError, match=f"is proposed to main already, by {REPO}#1") as caught:
        place.open(base="release")
    assert caught.value.field == "--branch"
    assert first.commit == git(place.bare, "rev-parse", HEAD)
    assert place.open(base="release", branch="elsewhere").action is Action.OPENED
    place.server.world.pulls[REPO, 1].state = "closed"
    assert place.open(base="release").action is Action.OPENED


def test_our_pull_request_is_known_however_the_repository_is_capitalised(place: Place) -> None:
    place.retrain("one")
    first = place.open()
    place.retrain("two")
    again = place.open(repository="Octo/Adapters")
    assert (again.action, again.number) == (Action.UPDATED, first.number)


def test_people_of_a_managed_enterprise_are_named_by_their_logins(place: Place) -> None:
    place.server.world.collaborators.add("mona_octo")
    place.retrain()
    place.open(reviewers=("mona_octo",))
    assert place.pull.reviewers == ["mona_octo"]
    with pytest.raises(InputError, match="mona_octo/adapters has no branch"):
        place.open(repository="mona_octo/adapters")


def test_a_pull_request_without_our_marker_is_not_touched(place: Place) -> None:
    place.retrain()
    place.open()
    pull = place.pull
    for body in ("by hand", f"> {pull.body}", pull.body.replace("dates -->", "other -->")):
        pull.body = body
        with pytest.raises(InputError, match="is not ours"):
            place.open()
        assert pull.body == body


@pytest.mark.parametrize("deleted", [False, True])
def test_a_fork_with_a_branch_of_our_name_is_not_taken_for_ours(
    place: Place, deleted: bool
) -> None:
    forged = place.server.add_pull(
        REPO, 5, head_ref=HEAD, head_repository="octo/fork", base_ref="main", author="mallory"
    )
    forged.body, forged.head_deleted = marker("pr:adapters-dates"), deleted
    place.retrain()
    assert place.open().number == 6
    place.retrain("and again")  # with a branch of ours the fork's is listed before it
    assert place.open().number == 6
    assert forged.title == "Adapter"


# ---------------------------------------------------------------- pushes in between


def push_right_before(place: Place, writes: str, after: int = 0) -> list[str]:
    """A person pushes to our branch, once, in the moment before a request that matches; the first
    `after` of these go by."""
    pushed: list[str] = []
    left = [after]

    def push(method: str, path: str) -> None:
        if pushed or not re.search(writes, f"{method} {path}"):
            return
        left[0] -= 1
        if left[0] < 0:
            tip = git(place.bare, "rev-parse", HEAD)
            tree = git(place.bare, "rev-parse", f"{tip}^{{tree}}")
            pushed.append(git(place.bare, "commit-tree", tree, "-p", tip, "-m", "by hand"))
            git(place.bare, "update-ref", f"refs/heads/{HEAD}", pushed[0], tip)

    place.server.chaos = push
    return pushed


def test_starting_over_loses_nothing_that_is_pushed_meanwhile(place: Place) -> None:
    place.retrain("one")
    place.open()
    place.pull.state = "closed"
    place.retrain("two")
    pushed = push_right_before(place, "^PATCH .*/git/refs/|^POST /graphql$")
    with pytest.raises(InputError, match="exists, and is not ours"):
        place.open()
    assert pushed == [git(place.bare, "rev-parse", HEAD)]


def test_going_back_after_a_failure_loses_nothing_that_is_pushed_meanwhile(place: Place) -> None:
    place.retrain("one")
    place.open()
    place.server.inject(Fault("PATCH", r"/pulls/\d+$", status=502, times=1000))
    place.retrain("two")
    # The first PATCH of a ref is our own move forward.
    pushed = push_right_before(place, "^PATCH .*/git/refs/|^POST /graphql$", after=1)
    with pytest.raises(GitHubFailure):
        place.open(title="Another title")
    assert pushed == [git(place.bare, "rev-parse", HEAD)]


def test_a_branch_of_ours_that_somebody_pushed_to_is_not_deleted(place: Place) -> None:
    place.retrain()
    place.server.inject(Fault("POST", "/pulls$", status=502, times=1000))
    pushed = push_right_before(place, "^DELETE|^POST /graphql$")
    with pytest.raises(OurFailure):
        place.open()
    assert pushed == [git(place.bare, "rev-parse", HEAD)]


def test_starting_over_settles_when_the_answer_to_the_move_is_lost(place: Place) -> None:
    place.retrain("one")
    place.open()
    place.pull.state = "closed"
    place.server.inject(Fault("POST", "/graphql$", status=502, after_write=True))
    place.retrain("two")
    outcome = place.open()
    assert outcome.action is Action.OPENED
    assert outcome.commit == git(place.bare, "rev-parse", HEAD)


def test_a_forced_move_that_is_not_allowed_is_not_called_moved(place: Place) -> None:
    place.retrain("one")
    place.open()
    place.pull.state = "closed"
    rule = {"type": "UNPROCESSABLE", "message": "Cannot force-push to this branch"}
    place.server.inject(Fault("POST", "/graphql$", 200, errors=[rule]))
    place.retrain("two")
    with pytest.raises(GitHubFailure, match="Cannot force-push to this branch"):
        place.open()


# ---------------------------------------------------------------- where `origin` is

GHE = {"GITHUB_API_URL": "https://ghe.example/api/v3"}
BELOW_A_PATH = {"GITHUB_API_URL": "https://ghe.example/hub/api/v3"}
RESIDENT = {"GITHUB_API_URL": "https://api.octo.ghe.com"}


@pytest.mark.parametrize(
    ("origin", "environment"),
    [
        ("https://github.com/octo/adapters.git", {}),
        ("https://github.com/octo/adapters/", {}),
        ("https://alice:s3cret@GitHub.com/octo/adapters", {}),
        ("git@github.com:octo/adapters.git", {}),
        ("org-42@github.com:octo/adapters", {}),
        ("github.com:/octo/adapters.git", {}),
        ("ssh://git@github.com/octo/adapters.git", {}),
        ("ssh://git@ssh.github.com:443/octo/adapters.git", {}),
        ("https://ghe.example/octo/adapters.git", GHE),
        ("git@ghe.example:octo/adapters.git", GHE),
        ("ssh://git@ghe.example:122/octo/adapters.git", GHE),
        ("git@octo.ghe.com:octo/adapters.git", RESIDENT),
        ("https://ghe.example/hub/octo/adapters.git", BELOW_A_PATH),
        ("git@ghe.example:octo/adapters.git", BELOW_A_PATH),
    ],
)
def test_origin_names_the_repository_on_the_apis_own_server(
    tmp_path: Path, origin: str, environment: dict[str, str]
) -> None:
    git(tmp_path, "init", "-q")
    assert repository_at(tmp_path, server_url(environment)) == ""
    git(tmp_path, "remote", "add", "origin", origin)
    assert repository_at(tmp_path, server_url(environment)) == "octo/adapters"


@pytest.mark.parametrize(
    ("origin", "other"),
    [
        ("", "https://github.com/org/action"),
        ("git@github.com:octo/adapters.git", "https://github.com/org/action"),
        ("../hub/octo/adapters.git", "https://github.com/org/action"),
        ("https://alice:s3cret@ghe.example/octo/adapters.git", "https://ghe.example/org/action"),
        ("https://ghe.example:8443/hub/octo/adapters/", "https://ghe.example:8443/hub/org/action"),
        ("git@ghe.example:octo/adapters.git", "git@ghe.example:org/action"),
        ("ssh://git@ghe.example:122/octo/adapters", "ssh://git@ghe.example:122/org/action"),
    ],
)
def test_another_repository_lies_beside_origin(tmp_path: Path, origin: str, other: str) -> None:
    git(tmp_path, "init", "-q")
    if origin:
        git(tmp_path, "remote", "add", "origin", origin)
    assert beside_origin(tmp_path, "org/action", "https://github.com") == other


@pytest.mark.parametrize(
    ("origin", "environment", "host"),
    [
        ("https://gitlab.com/octo/adapters.git", {}, "gitlab.com"),
        ("git@gitlab.com:octo/adapters.git", {}, "gitlab.com"),
        ("https://alice:s3cret@evil.example/octo/adapters.git", {}, "evil.example"),
        ("https://github.com.evil.example/octo/adapters", {}, "github.com.evil.example"),
        ("https://evil.example/github.com/octo/adapters", {}, "evil.example"),
        ("git@github-work:octo/adapters.git", {}, "github-work"),
        ("git@github.com:octo/adapters.git", GHE, "github.com"),
        ("git@ghe.example:octo/adapters.git", {}, "ghe.example"),
        ("../hub/octo/adapters.git", {}, "no address of a server"),
        ("file:///srv/octo/adapters.git", {}, "no address of a server"),
    ],
)
def test_attack_an_origin_elsewhere_names_no_repository_of_ours(
    place: Place, origin: str, environment: dict[str, str], host: str
) -> None:
    """A stranger's octo/adapters on github.com would be proposed to."""
    git(place.checkout, "remote", "set-url", "origin", origin)
    given = {**os.environ, "GITHUB_TOKEN": "t0ken", **environment}
    given = {k: v for k, v in given.items() if k not in ("GITHUB_REPOSITORY", "GITHUB_SERVER_URL")}
    done = command_line.run(
        "pr", "open", "Better dates", "--adapter", "adapters/dates", cwd=place.checkout, env=given
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert host in line
    assert "--repo owner/name" in line
    assert "s3cret" not in line


def test_an_alias_of_sshs_configuration_is_no_obstacle_to_the_option(place: Place) -> None:
    git(place.checkout, "remote", "set-url", "origin", "git@github-work:octo/adapters.git")
    place.retrain()
    environment = {k: v for k, v in place.environment.items() if k != "GITHUB_REPOSITORY"}
    outcome = pr_open.run(place.options(repository=REPO), environment).outcome
    assert outcome.action is Action.OPENED


# ---------------------------------------------------------------- refusals and what they leave


@pytest.mark.parametrize(
    ("forbidden", "line"),
    [
        ("git/create", "contents: write"),
        ("git/update", "contents: write"),
        ("pulls/create", "pull-requests: write"),
        ("pulls/update", "pull-requests: write"),
        ("issues/add-labels", "pull-requests: write"),
    ],
)
def test_a_missing_permission_names_the_line_to_add(
    place: Place, forbidden: str, line: str
) -> None:
    if "update" in forbidden:
        place.retrain("one")
        place.open()
    tip = place.server.world.branch(REPO, HEAD)
    place.retrain("two")
    place.server.add_token("t0ken", forbidden=[forbidden])
    with pytest.raises(InputError, match="lacks a permission") as caught:
        place.open(labels=("adapter",))
    assert f"`permissions: {line}`" in str(caught.value.fix)
    if forbidden != "issues/add-labels":
        # Nothing is left half-done: the branch is where it was, or is not there.
        assert place.server.world.branch(REPO, HEAD) == tip


def test_a_repository_that_lets_no_action_open_pull_requests_says_where(place: Place) -> None:
    place.server.world.may_open = False
    place.retrain()
    with pytest.raises(InputError, match="may not open pull requests") as caught:
        place.open()
    assert "Workflow permissions" in str(caught.value.field)
    assert place.server.world.branch(REPO, HEAD) is None


def test_a_draft_where_there_are_none_is_named_and_leaves_no_branch(place: Place) -> None:
    place.server.world.drafts_allowed = False
    place.retrain()
    with pytest.raises(InputError, match="no draft pull requests"):
        place.open(draft=True)
    assert place.server.world.branch(REPO, HEAD) is None


def test_a_branch_that_may_not_be_moved_is_not_called_moved(place: Place) -> None:
    place.retrain("one")
    place.open()
    before = git(place.bare, "rev-parse", HEAD)
    place.server.inject(Fault("PATCH", "/git/refs/", 422, "Cannot update this protected ref."))
    place.retrain("two")
    with pytest.raises(GitHubFailure, match=r"Cannot update this protected ref") as caught:
        place.open()
    assert "was moved" not in str(caught.value)
    assert git(place.bare, "rev-parse", HEAD) == before


def test_what_github_finds_wrong_is_passed_on(place: Place) -> None:
    place.retrain()
    place.server.inject(
        Fault(
            "POST", "/pulls$", 422, "Validation Failed",
            errors=[
                {"resource": "PullRequest", "field": "head", "code": "invalid"},
                {"resource": "PullRequest", "code": "custom", "message": "too many of them"},
            ],
        )
    )  # fmt: skip
    with pytest.raises(GitHubFailure, match=r"PullRequest head invalid: too many of them"):
        place.open()


def test_a_reviewer_who_cannot_be_asked_leaves_a_whole_pull_request(place: Place) -> None:
    place.retrain()
    with pytest.raises(InputError, match="is there, but GitHub asks none") as caught:
        place.open(reviewers=("stranger",))
    assert caught.value.field == "--reviewer"
    assert place.open(reviewers=("alice",)).action is Action.UNCHANGED
    assert place.pull.reviewers == ["alice"]


def test_what_is_wrong_on_disk_is_said_before_anything_is_asked(
    place: Place, tmp_path: Path
) -> None:
    wrong: list[dict[str, Any]] = [
        {"title": ""},
        {"adapter": tmp_path / "none", "path": "a"},
        {"branch": "-x"},
        {"reviewers": ("a b",)},
        {"include": ("../..",)},
        {"include": ("nothing",)},
        {"repository": "nonsense"},
        {"evidence": EvidenceOptions(eval=tmp_path / "none.json")},
    ]
    for more in wrong:
        with pytest.raises(InputError):
            place.open(**more)
    (place.adapter / "adapter_model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(InputError, match="pickle"):
        place.open()
    assert place.server.requests == []


def test_a_base_that_does_not_exist_is_named(place: Place) -> None:
    place.retrain()
    with pytest.raises(InputError, match="no branch 'nope'"):
        place.open(base="nope")


def test_a_file_too_large_for_github_asks_for_lfs(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(branches, "LARGEST_BLOB", 1000)
    place.retrain("x" * 2000)
    with pytest.raises(InputError, match="outside Git LFS") as caught:
        place.open()
    assert "git lfs track '*.md'" in str(caught.value.fix)


# ---------------------------------------------------------------- a GitHub that fails


FAULTS = [
    Fault("POST", "/pulls$", status=502, after_write=True),
    Fault("POST", "/pulls$", status=502),
    Fault("POST", "/pulls$", reset=True, after_write=True),
    Fault("POST", "/git/refs$", status=502, after_write=True),
    Fault("POST", "/git/blobs$", status=502, times=2),
    Fault("POST", "/git/trees$", reset=True),
    Fault("POST", "/git/commits$", truncate=True),
    Fault("GET", "/pulls$", status=500),
    Fault("POST", "/labels$", status=502, after_write=True),
    Fault("POST", "/requested_reviewers$", reset=True, after_write=True),
]


def test_json_that_is_not_githubs_is_one_line_wherever_it_comes(place: Place) -> None:
    asked = 0

    def chaos(_method: str, _path: str) -> Fault | None:
        nonlocal asked
        asked += 1
        return Fault(status=200, page=content) if asked - 1 == at else None

    for content in (b'["x"]', b'{"sha": null}'):
        for at in range(20):
            asked = 0
            place.retrain(f"{at} {content.decode()}")
            place.server.chaos = chaos
            with suppress(AdapterbotError):
                place.open(labels=("x",), reviewers=("alice",))
    place.server.chaos = None


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.path} {fault.status}")
def test_a_hiccup_leaves_one_whole_pull_request(place: Place, fault: Fault) -> None:
    place.server.inject(replace(fault))
    place.retrain()
    outcome = place.open(labels=("adapter",), reviewers=("alice",))
    assert outcome.action in (Action.OPENED, Action.UPDATED)
    pull = place.pull
    assert (pull.labels, pull.reviewers) == (["adapter"], ["alice"])
    assert git(place.bare, "rev-parse", HEAD) == outcome.commit


@pytest.mark.parametrize(
    "path", ["/git/blobs$", "/git/trees$", "/git/commits$", "/git/refs$", "/pulls$"]
)
def test_a_github_that_stays_down_leaves_nothing_and_the_next_run_finishes(
    place: Place, path: str
) -> None:
    place.server.inject(Fault("POST", path, status=502, times=1000))
    place.retrain()
    with pytest.raises(OurFailure):
        place.open()
    assert place.server.world.branch(REPO, HEAD) is None
    assert place.server.world.pulls == {}
    place.server.faults.clear()
    assert place.open().action is Action.OPENED


def test_an_update_that_fails_halfway_puts_the_branch_back(place: Place) -> None:
    place.retrain("one")
    first = place.open()
    place.server.inject(Fault("PATCH", r"/pulls/\d+$", status=502, times=1000))
    place.retrain("two")
    with pytest.raises(GitHubFailure):
        place.open(title="Another title")
    assert git(place.bare, "rev-parse", HEAD) == first.commit
    place.server.faults.clear()
    second = place.open(title="Another title")
    assert (second.action, second.number) == (Action.UPDATED, first.number)


def test_a_run_that_was_killed_between_branch_and_pull_request_is_finished(place: Place) -> None:
    place.retrain()
    first = place.open()
    place.server.world.pulls.clear()  # as if the kill had come before it
    again = place.open()
    assert again.action is Action.OPENED
    assert git(place.bare, "rev-parse", f"{HEAD}^{{tree}}") == git(
        place.bare, "rev-parse", f"{first.commit}^{{tree}}"
    )


def test_runs_that_race_leave_one_pull_request(place: Place) -> None:
    place.retrain()
    failures: list[Exception] = []

    def run() -> None:
        try:
            place.open(labels=("adapter",))
        except Exception as error:  # noqa: BLE001 looked at below
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # One that was overtaken six times in a row may give up, and says so; none leaves a second.
    assert all(isinstance(error, OurFailure) for error in failures), failures
    assert len(failures) < 4
    place.open(labels=("adapter",))
    assert len(place.server.world.open_pulls()) == 1
    assert place.at(HEAD, "adapters/dates/README.md") == "again"


# ---------------------------------------------------------------- Git LFS


def track(place: Place, pattern: str = "*.safetensors") -> None:
    (place.checkout / ".gitattributes").write_text(
        f"{pattern} filter=lfs diff=lfs merge=lfs -text\n"
    )
    git(place.checkout, "add", ".gitattributes")
    git(place.checkout, "commit", "-qm", "lfs")
    git(place.checkout, "push", "-q", "origin", "main")


lfs_only = pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not installed")


@lfs_only
def test_a_repository_with_lfs_gets_a_pointer_and_the_object(place: Place) -> None:
    import hashlib

    track(place)
    place.retrain("one")
    outcome = place.open(labels=("adapter",))
    assert outcome.action is Action.OPENED
    weights = (place.adapter / "adapter_model.safetensors").read_bytes()
    oid = hashlib.sha256(weights).hexdigest()
    pointer = place.at(HEAD, "adapters/dates/adapter_model.safetensors")
    assert f"oid sha256:{oid}" in pointer
    assert (place.bare / "lfs" / "objects" / oid[:2] / oid[2:4] / oid).read_bytes() == weights
    assert place.at(HEAD, "adapters/dates/README.md") == "one"
    assert place.at(HEAD, "adapters/dates/.hidden") == "stays"
    assert oid in place.pull.body
    assert place.server.sent("POST", "/git/") == []
    again = place.open(labels=("adapter",))
    assert (again.action, again.commit) == (Action.UNCHANGED, outcome.commit)
    place.retrain("two")
    (place.adapter / "notes.txt").unlink()
    assert place.open().action is Action.UPDATED
    assert place.at(HEAD, "adapters/dates/README.md") == "two"
    assert "notes.txt" not in place.names(HEAD)
    # Nothing of this touched the user's own checkout or its configuration.
    assert git(place.checkout, "branch", "--show-current") == "main"
    assert "filter" not in (place.checkout / ".git" / "config").read_text()


@lfs_only
def test_with_lfs_a_failure_leaves_no_branch(place: Place) -> None:
    track(place)
    place.retrain()
    place.server.inject(Fault("POST", "/pulls$", status=502, times=1000))
    with pytest.raises(OurFailure):
        place.open()
    assert place.server.world.branch(REPO, HEAD) is None


@pytest.mark.parametrize("pushed", ["in between", "with no answer"])
def test_a_push_that_loses_a_race_is_looked_at_again(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pushed: str
) -> None:
    """Git has many words for it: the server's own, when both pushes are there at once."""
    programs.git_lfs(tmp_path, monkeypatch)
    base = git(place.bare, "rev-parse", "main")
    new = git(place.bare, "commit-tree", f"{base}^{{tree}}", "-p", base, "-m", "by hand")
    git(place.bare, "update-ref", "refs/heads/ours", base)
    (place.bare / "hooks").mkdir(exist_ok=True)
    hook = place.bare / "hooks" / ("update" if pushed == "in between" else "post-update")
    moved = f"git update-ref refs/heads/ours {new}"
    # Of a server that goes away before it has answered, the client hears no more than that.
    gone = "kill -9 $(ps -o ppid= -p $PPID)"
    hook.write_text(f"#!/bin/sh\n{moved if pushed == 'in between' else gone}\n")
    hook.chmod(0o755)
    place.retrain()
    change = branches.Change(
        {"adapters/dates/README.md": place.adapter / "README.md"}, "adapters/dates", lambda _: False
    )
    remote = Remote(f"file://{place.bare}")
    wanted = branches.Placement("ours", base, "main", base, change, "again")

    def push() -> str | None:
        return lfs.place(remote, wanted, frozenset[str]())

    if pushed == "in between":
        with pytest.raises(BranchMovedError):
            push()
        assert git(place.bare, "rev-parse", "ours") == new
    else:
        assert push() == git(place.bare, "rev-parse", "ours")


def test_attributes_that_are_a_folder_are_named(place: Place) -> None:
    (place.checkout / ".gitattributes").mkdir()
    (place.checkout / ".gitattributes" / "x").write_text("")
    commit(place.checkout, "odd")
    git(place.checkout, "push", "-q", "origin", "main")
    place.retrain()
    with pytest.raises(InputError, match=r"\.gitattributes: is not a file that Git reads"):
        place.open()


def test_attributes_that_do_not_concern_the_adapter_leave_the_api_route(place: Place) -> None:
    track(place, "*.bin")
    place.retrain()
    assert place.open().action is Action.OPENED
    assert place.server.sent("POST", "/git/blobs$")


def test_the_repository_whose_hook_runs_us_has_no_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitattributes").write_text("* -filter\n")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    attributes = {".gitattributes": b"*.bin filter=lfs\n"}
    assert lfs.tracked(attributes, ["a/x.bin", "a/y.json"]) == {"a/x.bin"}


def test_without_git_lfs_it_is_asked_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    track(place)
    place.retrain()
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "git-lfs" else found(name))
    with pytest.raises(InputError, match="git-lfs is not on this machine"):
        place.open()


def test_git_is_given_the_token_without_the_line_end_that_it_was_pasted_with() -> None:
    for given in ({"GITHUB_TOKEN": "t0ken\n"}, {"GITHUB_TOKEN": " \n", "GH_TOKEN": "t0ken\n"}):
        assert client_for(REPO, given).token() == "t0ken"


def test_the_token_is_in_no_argument_url_or_repr() -> None:
    remote = Remote("https://github.com/octo/adapters.git", lambda: "s3cret")
    assert "s3cret" not in repr(remote) + remote.url
    values = [v for k, v in remote.environment().items() if k.startswith("GIT_CONFIG_VALUE")]
    assert any(value.startswith("Authorization: Basic ") for value in values)


def test_one_token_is_sent_where_a_checkout_left_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GitHub refuses a request with two Authorization headers."""
    with listening() as (server, sent):
        host = f"{server}/"
        monkeypatch.setenv("HOME", str(tmp_path))
        git(tmp_path, "config", "--global", f"http.{host}.extraheader", "Authorization: Basic b2xk")
        remote = Remote(f"{host}octo/adapters.git", lambda: "new")
        subprocess.run(
            ["git", "ls-remote", remote.url],
            env=remote.environment(),
            capture_output=True,
            check=False,
        )
    basic = base64.b64encode(b"x-access-token:new").decode()
    assert sent
    assert sent[0] == [f"Basic {basic}"]


# ---------------------------------------------------------------- hostile names


def test_a_hostile_title_is_dead_in_body_and_commit_message(place: Place) -> None:
    place.retrain()
    title = "fixes #1 for @acme/team, see GH-2 \u202eand https://evil.example www.evil.example"
    place.open(title=title)
    message = git(place.bare, "log", "-1", "--format=%B", HEAD)
    for alive in ("#1", "@acme", "GH-2", "://", "www.", "\u202e"):
        assert alive not in message, alive
    assert "\n\nAdapterbot-Key: pr:adapters-dates" in message


# ---------------------------------------------------------------- the command


def test_pr_open_prints_what_it_did_as_json(place: Place) -> None:
    place.retrain()
    given = [
        "pr", "open", "Better dates", "--adapter", "adapters/dates", "--base", "main",
        "--label", "adapter", "--json",
    ]  # fmt: skip
    env = {**os.environ, **place.environment}
    done = command_line.run(*given, env=env)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["action"], told["number"]) == ("opened", 1)
    assert told["commit"] == git(place.bare, "rev-parse", HEAD)
    del env["GITHUB_TOKEN"]
    done = command_line.run(*given, env=env)
    assert done.returncode == 2
    assert "GITHUB_TOKEN" in json.loads(done.stdout)["error"]["fix"]


def test_push_keeps_one_comment(place: Place, tmp_path: Path) -> None:
    place.server.add_pull(REPO, 7)

    def pushed(title: str, to: str = f"{REPO}#7") -> Rendered:
        adapter, nothing = Path("adapters/dates"), EvidenceOptions()
        return run(title, "a" * 40, adapter, nothing, push=to, environment=place.environment)

    first, second = pushed("A title"), pushed("Another")
    assert first.comment_url == second.comment_url
    (comment,) = place.server.comments(REPO, 7)
    assert comment.body.startswith(marker("pr:adapters-dates"))
    assert "# Another" in comment.body
    with pytest.raises(InputError, match="not a pull request"):
        pushed("A title", to="octo/adapters")
