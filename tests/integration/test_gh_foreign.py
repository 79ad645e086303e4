"""What answers is JSON, and not GitHub's: a proxy's own, or a server's that only looks like it.

Every reply that is read, at every place in which it is asked for, is one clear line at worst.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from contextlib import suppress

import pytest

from adapterbot.context import Origin
from adapterbot.errors import AdapterbotError, GitHubFailure
from adapterbot.gh import artifacts
from adapterbot.gh.checks import CheckResult, Checks, Conclusion
from adapterbot.gh.client import Client, Patience, connect
from adapterbot.gh.comments import Thread
from adapterbot.gh.heads import head_of, heads_of
from adapterbot.gh.permissions import token_facts
from adapterbot.gh.replies import Conversation
from adapterbot.marker import marker
from adapterbot.publishing import CheckMode, CommentMode
from tests.github_server import Fault, GitHubServer

REPO, PULL, HEAD, RUN = "octo/adapters", 7, "c" * 40, 5
US = "github-actions[bot]"
FOREIGN = [
    b"{}",
    b"[]",
    b"[null]",
    b'["x"]',
    b'{"id": "x", "html_url": 7, "user": "me", "head": "x", "permission": {}, "message": 3}',
    b'[{"id": 1, "url": "x", "html_url": "x", "node_id": "x", "user": {"login": 3}}]',
    b'{"data": {"viewer": {}}}',
    b'{"errors": ["no"], "artifacts": null, "check_runs": [null]}',
    b'{"artifacts": [{}], "check_runs": [{"external_id": "12.1/adapterbot"}]}',
]


def client(server: GitHubServer) -> Client:
    patience = Patience(attempts=2, settle=0.0, sleep=lambda _: None)
    return connect("t0ken", server.url, patience=patience)


def comment(server: GitHubServer, mode: CommentMode = CommentMode.UPDATE) -> None:
    server.add_comment(REPO, PULL, f"{marker('a')}\nold\n", author=US)
    thread = Thread(client(server), REPO, PULL, mode=mode)
    thread.put("a", f"{marker('a')}\nnew\n")
    thread.put("b", f"{marker('b')}\nnew\n")


def fold(server: GitHubServer) -> None:
    comment(server, CommentMode.MINIMIZE)


def check(server: GitHubServer) -> None:
    checks = Checks(client(server), REPO, HEAD, CheckMode.RUN, run="12.1", resumed=True)
    checks.open("adapterbot", "Waiting", queued=True)
    checks.close("adapterbot", CheckResult(Conclusion.FAILURE, "Regressed", "much to read"))


def find(server: GitHubServer) -> None:
    head_of(client(server), REPO, PULL)
    heads_of(client(server), REPO, Origin(repository=REPO, branch="better"), HEAD)


def fetch(server: GitHubServer) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("report.json", "{}")
    server.world.add_artifact(REPO, RUN, "adapterbot-report", packed.getvalue())
    for artifact in artifacts.find(client(server), REPO, RUN, "adapterbot-report"):
        artifacts.fetch(client(server), REPO, artifact, 1000)


def answer(server: GitHubServer) -> None:
    asked = server.add_comment(REPO, PULL, "/adapterbot help", author="alice")
    conversation = Conversation(client(server), REPO, PULL, asked.id)
    conversation.may_write("alice")
    conversation.react("eyes")
    conversation.reply("help")


def ask_of_the_token(server: GitHubServer) -> None:
    token_facts(client(server), REPO)


def run(flow: Callable[[GitHubServer], None], fault: Fault | None = None, at: int = -1) -> int:
    """How many requests a flow sends; the fault hits the one at `at`."""
    asked = 0

    def chaos(_method: str, _path: str) -> Fault | None:
        nonlocal asked
        asked += 1
        return fault if asked - 1 == at else None

    with GitHubServer(chaos=chaos) as server:
        server.add_token("t0ken")
        server.add_pull(REPO, PULL, head_sha=HEAD)
        flow(server)
    return asked


@pytest.mark.parametrize("flow", [comment, fold, check, find, fetch, answer, ask_of_the_token])
def test_json_of_another_shape_is_one_line_wherever_it_comes(flow):
    for at in range(run(flow)):
        for content in FOREIGN:
            with suppress(AdapterbotError):
                run(flow, Fault(status=200, page=content), at)


@pytest.mark.parametrize("content", [b'["x"]', b'{"message": 3}'])
@pytest.mark.parametrize("status", [403, 404, 422, 500])
def test_a_refusal_of_another_shape_is_one_line(github, status, content):
    """PyGithub takes each for an object with a message."""
    github.add_pull(REPO, PULL)
    github.inject(Fault("GET", "/comments$", status=status, page=content, times=2))
    with pytest.raises(AdapterbotError, match="while listing the comments") as caught:
        Thread(client(github), REPO, PULL).keys()
    assert "\n" not in str(caught.value)


def test_what_is_wrong_with_it_is_said(github):
    github.add_pull(REPO, PULL, head_sha=HEAD)
    github.inject(Fault("GET", "/comments$", status=200, page=b'[{"id": "1"}]'))
    with pytest.raises(GitHubFailure) as caught:
        Thread(client(github), REPO, PULL).keys()
    assert str(caught.value) == (
        f"127.0.0.1:{github.url.rpartition(':')[2]} does not answer as GitHub does while listing "
        "the comments of octo/adapters#7: status 200 with JSON in which `0.id` is '1', not a whole "
        "number (check GITHUB_API_URL (an Enterprise Server's ends in /api/v3), and the proxy or "
        "sign-in page on the way)"
    )


def test_a_server_that_calls_itself_by_another_name_is_told_apart(github):
    """An alias of an Enterprise Server: the second run ended in PyGithub's AssertionError."""
    github.add_pull(REPO, PULL)
    github.add_comment(REPO, PULL, f"{marker('a')}\nold\n", author=US)
    alias = github.url.replace("127.0.0.1", "localhost")
    with pytest.raises(GitHubFailure) as caught:
        Thread(connect("t0ken", alias), REPO, PULL).put("a", f"{marker('a')}\nnew\n")
    assert "`0.url` is on 127.0.0.1, and not on localhost (check GITHUB_API_URL" in str(
        caught.value
    )
