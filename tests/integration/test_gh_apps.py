"""Whoever has no token: a GitHub App's id and key, for the action and for every command."""

from __future__ import annotations

import base64
import json
import os
import shutil
import traceback
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from adapterbot import beside
from adapterbot.commands import history
from adapterbot.config import HistoryConfig
from adapterbot.errors import GitHubFailure, InputError
from adapterbot.gh import lfs
from adapterbot.gh.access import client_for
from adapterbot.gh.branches import Change, Placement
from adapterbot.gh.client import Client, Patience
from adapterbot.gh.comments import Thread
from adapterbot.gh.heads import head_of
from adapterbot.gh.purpose import Purpose
from adapterbot.gh.remote import Remote
from adapterbot.git.program import git, git_as
from adapterbot.marker import marker
from tests import command_line, example, git_server, programs
from tests.github_app import POSTING, PROPOSING, TOKEN, app_key, with_app
from tests.github_server import Fault, GitHubServer
from tests.github_server.runs import App
from tests.golden.reports import REPORTS
from tests.listening import listening

REPO, PULL = "octo/adapters", 7
MINTED = "access_tokens$"
CHECKING = {"checks": "write", "pull_requests": "read", "statuses": "read"}


@pytest.fixture
def github(github: GitHubServer) -> GitHubServer:
    github.add_pull(REPO, PULL)
    return github


def swift(client: Client) -> Client:
    return replace(client, patience=Patience(first_wait=0.01, settle=0.0))


def test_an_app_speaks_with_its_id_and_key(github: GitHubServer, capsys: Any) -> None:
    environment = with_app(github) | {"GITHUB_ACTIONS": "true"}
    # As a secret that was pasted into one line, and as Windows writes it.
    for ends in ("\\n", "\r\n"):
        environment["ADAPTERBOT_APP_KEY"] = app_key()[0].replace("\n", ends)
        mine = client_for(REPO, environment)
        assert mine.login == "our-app[bot]"
    # The runner is asked to star it out, and nothing else of it is printed.
    assert capsys.readouterr().err == f"::add-mask::{TOKEN}\n"
    hurried = client_for(REPO, environment, hurried=True)
    Thread(swift(hurried), REPO, PULL).put("a", marker("a") + "\n")
    assert [comment.author for comment in github.comments(REPO, PULL)] == ["our-app[bot]"]
    (asked,) = github.sent("POST", MINTED)
    assert asked.body["repositories"] == ["adapters"]


@pytest.mark.parametrize(
    ("purpose", "has", "asked"),
    [
        (Purpose.POST, {"pull_requests": "write", "contents": "write"}, {"pull_requests": "write"}),
        (Purpose.POST, {"checks": "write", "metadata": "read"}, {"checks": "write"}),
        (Purpose.POST, CHECKING, CHECKING),
        (
            Purpose.POST,
            POSTING | {"actions": "write", "statuses": "write"},
            POSTING | {"actions": "read", "statuses": "write"},
        ),
        (Purpose.PROPOSE, POSTING | PROPOSING, PROPOSING),
        (Purpose.PUSH, POSTING | PROPOSING, {"contents": "write"}),
    ],
)
def test_a_token_may_do_what_it_is_for_and_no_more(
    github: GitHubServer, purpose: Purpose, has: dict[str, str], asked: dict[str, str]
) -> None:
    environment = with_app(github, permissions=has)
    mine = client_for(REPO, environment, purpose)
    assert mine.token() == TOKEN
    if "pull_requests" in asked:  # to set checks is to read at which commit a pull request is
        assert head_of(mine, REPO, PULL).open
    (sent,) = github.sent("POST", MINTED)
    assert sent.body["permissions"] == asked


def test_a_job_that_takes_longer_than_a_token_lasts_gets_another(github: GitHubServer) -> None:
    """The mistake: a gate of more than an hour could not post what it had found."""
    environment = with_app(github)
    mine = client_for(REPO, environment)
    for _ in range(2):
        assert mine.login == "our-app[bot]"
    assert len(github.sent("POST", MINTED)) == 1
    github.world.apps[0] = App(
        "7", app_key()[1], TOKEN, "b[bot]", POSTING, life=timedelta(minutes=9)
    )
    mine = swift(client_for(REPO, environment | {"ADAPTERBOT_APP_ID": "7"}))
    Thread(mine, REPO, PULL).put("a", marker("a") + "\n")
    github.world.minted.clear()  # the hour is over
    Thread(mine, REPO, PULL).put("a", marker("a") + "\nsecond\n")
    (comment,) = github.comments(REPO, PULL)
    assert "second" in comment.body


def test_a_token_is_asked_for_again_when_github_does_not_answer(github: GitHubServer) -> None:
    environment = with_app(github)
    github.inject(Fault("POST", MINTED, status=502), Fault("GET", "installation$", status=502))
    assert swift(client_for(REPO, environment)).token() == TOKEN
    assert len(github.sent("POST", MINTED)) == 2


def test_a_token_is_used_to_its_end_when_github_gives_no_other(github: GitHubServer) -> None:
    environment = with_app(github, life=timedelta(minutes=9))
    mine = swift(client_for(REPO, environment))
    assert mine.token() == TOKEN
    github.inject(*[Fault("POST", MINTED, status=502)] * 9)
    for _ in range(3):
        assert mine.token() == TOKEN
    assert len(github.sent("POST", MINTED)) == 2, "not asked anew by every request"


def test_what_the_user_says_of_git_by_numbers_holds_where_we_push(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("COUNT", "1"), ("KEY_0", "http.proxy"), ("VALUE_0", "http://p")):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    ours = Remote("https://github.com/octo/adapters", lambda: "t0ken").environment()
    assert git_as(tmp_path, ours, "config", "http.proxy") == b"http://p\n"
    assert git_as(tmp_path, ours, "config", "core.hooksPath") == b"/dev/null\n"
    monkeypatch.setenv("GIT_CONFIG_COUNT", "one")
    for asked in (Remote().environment, lambda: git(tmp_path, "version")):
        with pytest.raises(InputError, match="GIT_CONFIG_COUNT: 'one' is no number of settings"):
            asked()


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("wrong", "app", "line"),
    [
        ({"ADAPTERBOT_APP_ID": "9"}, {}, r"knows no App 9 .*Integration not found \(copy the id"),
        ({"ADAPTERBOT_APP_ID": "8"}, {}, r"knows no App 8 with this key: .* make a new key"),
        ({}, {"repository": "octo/others"}, r"App 321 is not installed on octo/adapters \(install"),
        (
            {},
            {"permissions": {"contents": "write", "checks": "write", "pull_requests": "read"}},
            r"lacks pull_requests: write on octo/adapters \(add .* http.*/installations/77\)",
        ),
        ({}, {"permissions": {}}, "lacks contents: write and pull_requests: write on"),
        (
            {},
            {"permissions": PROPOSING, "suspended": True},
            r"is suspended on octo/adapters \(lift .*/installations/77\)",
        ),
    ],
)
def test_what_is_wrong_with_an_app_is_said_before_anything_is_written(
    github: GitHubServer, wrong: dict[str, str], app: dict[str, Any], line: str
) -> None:
    environment = with_app(github, **app) | wrong
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    kinds = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    github.world.apps.append(App("8", other.public_bytes(*kinds).decode(), "t", "eight[bot]", {}))
    with pytest.raises(InputError, match=line):
        client_for(REPO, environment, Purpose.PROPOSE).token()
    assert github.sent("POST") == []


@pytest.mark.parametrize(
    ("minutes", "way"), [(4, None), (-4, None), (20, "behind"), (-20, "ahead of")]
)
def test_a_clock_that_is_wrong_is_said_to_be(
    github: GitHubServer, minutes: int, way: str | None
) -> None:
    environment = with_app(github)
    github.world.ahead = timedelta(minutes=minutes)
    if way is None:
        assert client_for(REPO, environment).token() == TOKEN
        return
    with pytest.raises(InputError, match=rf"clock is 1(199|200|201) s {way} GitHub's"):
        client_for(REPO, environment).token()


@pytest.mark.parametrize("kind", ["broken", "public"])
def test_a_key_that_is_none_is_named_and_not_shown(github: GitHubServer, kind: str) -> None:
    secret = "-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0\n-----END RSA PRIVATE KEY-----"
    secret = app_key()[1] if kind == "public" else secret
    environment = with_app(github) | {"ADAPTERBOT_APP_KEY": secret}
    mine = client_for(REPO, environment)
    with pytest.raises(InputError, match=r"APP_KEY .*: is not a private key") as caught:
        mine.token()
    shown = "".join(traceback.format_exception(caught.value)) + repr(mine)
    assert secret.splitlines()[1] not in shown
    assert github.requests == []


def test_another_key_gets_no_token_of_the_one_before(github: GitHubServer) -> None:
    """Whoever sets a new key in a process that goes on is not answered with the old one's token."""
    environment = with_app(github)
    assert client_for(REPO, environment).token() == TOKEN
    with pytest.raises(InputError, match="is not a private key"):
        client_for(REPO, environment | {"ADAPTERBOT_APP_KEY": app_key()[1]}).token()


def test_one_without_the_other_is_refused() -> None:
    for name in ("ADAPTERBOT_APP_ID", "ADAPTERBOT_APP_KEY"):
        with pytest.raises(InputError, match="without the other"):
            client_for(REPO, {name: "1", "GITHUB_TOKEN": "t0ken"})


# ---------------------------------------------------------------- the commands


def test_a_pull_request_is_opened_by_an_app_on_an_enterprise_server(tmp_path: Path) -> None:
    """What a company has that forbids personal tokens; nothing of it is in its log."""
    bare, place = tmp_path / "hub" / "octo" / "adapters.git", tmp_path / "checkout"
    example.git(tmp_path, "init", "-q", "--bare", "-b", "main", "--template=", str(bare))
    example.git(tmp_path, "clone", "-q", "--template=", str(bare), str(place))
    adapter = place / "adapters" / "dates"
    shutil.copytree(example.EXAMPLE / "adapters" / "dates", adapter)
    example.git(place, "checkout", "-q", "-b", "main")
    example.commit(place, "first")
    example.git(place, "push", "-q", "origin", "main")
    (adapter / "README.md").write_text("retrained")
    given = ["pr", "open", "Better", "--adapter", "adapters/dates", "--json", "--reviewer", "alice"]
    with GitHubServer(prefix="/api/v3") as server:
        server.add_repository(REPO, bare)
        server.world.collaborators.add("alice")
        app = with_app(server, permissions=PROPOSING | {"checks": "write"})
        env = {k: v for k, v in os.environ.items() if k not in ("GITHUB_TOKEN", "GH_TOKEN")} | app
        env |= {"GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": REPO}
        del env["GITHUB_GRAPHQL_URL"]
        done = command_line.run(*given, cwd=place, env=env)
        assert done.returncode == 0, done.stderr
        assert server.violations == []
    told = json.loads(done.stdout)
    assert told["action"] == "opened"
    assert example.git(bare, "rev-parse", "adapterbot/adapters-dates") == told["commit"]
    assert {r.login for r in server.requests if "/git/" in r.path} == {"our-app[bot]"}
    assert done.stderr.count(TOKEN) == done.stderr.count(f"::add-mask::{TOKEN}\n") == 1
    assert "PRIVATE KEY" not in done.stdout + done.stderr


def test_history_is_pushed_as_the_app_and_by_hand_as_git_asks(
    github: GitHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mistakes: the App's token was for comments, and GitHub let it push nothing; nor was
    anything pushed from an editor's terminal, where git asks the editor."""
    bare, place = tmp_path / "hub" / "octo" / "adapters.git", tmp_path / "checkout"
    example.git(tmp_path, "init", "-q", "--bare", "--template=", str(bare))
    example.git(tmp_path, "init", "-q", str(place))
    example.git(place, "commit", "-q", "--allow-empty", "-m", "merged")
    environment = with_app(github, token=git_server.TOKEN, permissions=PROPOSING)
    environment |= {"GITHUB_ACTIONS": "true"}
    ask = tmp_path / "ask"
    ask.write_text(
        f"#!/bin/sh\ncase $1 in User*) echo x-access-token;; *) echo {git_server.TOKEN};; esac\n"
    )
    ask.chmod(0o755)
    monkeypatch.setenv("GIT_ASKPASS", str(ask))
    with git_server.private(tmp_path / "hub") as url:
        example.git(place, "remote", "add", "origin", f"{url}/octo/adapters.git")
        for branch, given in (("kept", environment | {"GITHUB_SERVER_URL": url}), ("own", {})):
            head = example.git(place, "rev-parse", "HEAD")
            config = HistoryConfig(branch=branch)
            assert history.keep(config, place, REPORTS["passed"](), head, given)
            assert example.git(bare, "show", f"{branch}:history.jsonl")
    (asked,) = github.sent("POST", MINTED)
    assert asked.body["permissions"] == {"contents": "write"}


def test_each_git_of_a_long_push_is_given_the_token_of_its_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.git_lfs(tmp_path, monkeypatch)
    tokens = iter(f"{n}" for n in range(9))
    change = Change({}, "adapters/dates", bool)
    wanted = Placement("b", None, "main", "0" * 40, change, "m")
    with listening() as (host, sent):
        remote = Remote(f"{host}/octo/adapters.git", lambda: next(tokens))
        for _ in range(2):
            with pytest.raises(GitHubFailure):
                lfs.place(remote, wanted, frozenset())
    shown = [base64.b64decode(header.split()[-1]) for (header,) in sent]
    assert shown == [b"x-access-token:2", b"x-access-token:5"]


def test_attack_no_program_that_we_start_is_told_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git and Git LFS run on a checkout of a stranger's; an App's key lasts for years."""
    monkeypatch.setenv("ADAPTERBOT_APP_KEY", "s3cret-key")
    monkeypatch.setenv("GITHUB_TOKEN", "t0ken")
    example.git(tmp_path, "init", "-q")
    example.git(tmp_path, "config", "alias.told", "!env")
    for said in (
        git(tmp_path, "told"),
        git_as(tmp_path, Remote("https://github.com/octo/adapters").environment(), "told"),
    ):
        assert b"s3cret-key" not in said
        assert b"GITHUB_TOKEN=t0ken" in said  # GitHub's own command line answers Git with it
    assert "t0ken" not in beside.environment().values()
