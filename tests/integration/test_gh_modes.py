"""What becomes of an earlier run's comment: modes, the order of runs, names of gates, races."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from adapterbot.errors import GitHubFailure, InputError
from adapterbot.gh.client import Client, Patience, connect
from adapterbot.gh.comments import CommentAction, Thread
from adapterbot.marker import Stamp, key_of, marker
from adapterbot.publishing import CommentMode
from tests.github_server import Fault, GitHubServer

REPO, PULL, KEY = "octo/adapters", 7, "dates"
OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def server(github: GitHubServer) -> GitHubServer:
    github.add_pull(REPO, PULL, head_sha=NEW)
    return github


def client(server: GitHubServer, **changes) -> Client:
    return connect("t0ken", server.url, patience=Patience(first_wait=0.01, settle=0.0, **changes))


def thread(server: GitHubServer, mode: str = "update", name: str = "adapterbot") -> Thread:
    return Thread(client(server), REPO, PULL, name, CommentMode(mode))


def body(text: str, name: str = "adapterbot") -> str:
    return f"{marker(KEY, name)}\n{text}\n"


def texts(server: GitHubServer) -> list[str]:
    return [c.body.splitlines()[-1] for c in server.comments(REPO, PULL)]


# ---------------------------------------------------------------- modes


def test_recreate_posts_anew_once_per_run_and_deletes_the_old(server):
    thread(server, "recreate").put(KEY, body("first"), Stamp(1, 1, OLD))
    (old,) = server.comments(REPO, PULL)
    server.add_comment(REPO, PULL, "a reviewer's word", author="alice")
    newer = thread(server, "recreate")
    newer.put(KEY, body("evaluating"), Stamp(2, 1, NEW), final=False)
    assert texts(server) == ["a reviewer's word", "evaluating"]
    newer.put(KEY, body("second"), Stamp(2, 1, NEW))
    assert texts(server) == ["a reviewer's word", "second"]
    assert old.id not in server.world.all_comments
    assert len(server.sent("POST", "comments$")) == 2


def test_minimize_folds_the_old_one_which_is_then_history(server):
    thread(server, "minimize").put(KEY, body("first"), Stamp(1, 1, OLD))
    (old,) = server.comments(REPO, PULL)
    thread(server, "minimize").put(KEY, body("second"), Stamp(2, 1, NEW))
    assert server.world.minimized == [old.id]
    assert texts(server) == ["first", "second"]
    assert key_of(server.world.all_comments[old.id].body) is None
    thread(server, "minimize").put(KEY, body("third"), Stamp(3, 1, NEW))
    assert texts(server) == ["first", "second", "third"]
    assert len(server.world.minimized) == 2


def test_an_old_comment_that_goes_before_it_is_folded_is_as_good(server):
    thread(server, "minimize").put(KEY, body("first"), Stamp(1, 1, OLD))
    (old,) = server.comments(REPO, PULL)
    newer = thread(server, "minimize")
    assert newer.client.login

    def somebody_deletes_it(method: str, path: str) -> None:
        if path.endswith("/graphql"):
            server.world.all_comments.pop(old.id, None)

    server.chaos = somebody_deletes_it
    outcome = newer.put(KEY, body("second"), Stamp(2, 1, NEW))
    assert outcome
    assert (outcome.action, outcome.left) == (CommentAction.CREATED, "")
    assert texts(server) == ["second"]
    assert len(server.sent("POST", "graphql")) == 3  # who we are, twice, and no second try


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ({"type": "FORBIDDEN", "message": "alice does not have permission"}, "does not have perm"),
        ({"type": "FORBIDDEN", "message": "Resource not accessible by integration"}, "lacks a"),
        ({"type": "UNPROCESSABLE", "message": "Not like that."}, r"Not like that\."),
    ],
)
def test_an_old_comment_that_cannot_be_folded_does_not_cost_the_verdict(server, error, said):
    for run in (1, 2):
        server.add_comment(
            REPO, PULL, Stamp(run, 1, OLD).on(body("old")), author="github-actions[bot]"
        )
    newer = thread(server, "minimize")
    assert newer.client.login
    server.inject(Fault("POST", "graphql", 200, errors=[error], times=99))
    outcome = newer.put(KEY, body("new"), Stamp(3, 1, NEW))
    assert outcome
    assert outcome.action == CommentAction.CREATED
    assert re.search(said, outcome.left)
    assert texts(server) == ["old", "old", "new"]
    assert len(server.sent("POST", "graphql")) == 2  # the second was not tried in vain
    server.faults.clear()
    thread(server, "minimize").put(KEY, body("newer"), Stamp(4, 1, NEW))
    assert len(server.world.minimized) == 3


def test_an_old_comment_that_cannot_be_deleted_does_not_cost_the_verdict(server):
    thread(server, "recreate").put(KEY, body("first"), Stamp(1, 1, OLD))
    server.inject(Fault("DELETE", status=403, message="Not yours", times=99))
    outcome = thread(server, "recreate").put(KEY, body("second"), Stamp(2, 1, NEW))
    assert outcome
    assert "Not yours" in outcome.left
    assert texts(server) == ["first", "second"]


@pytest.mark.parametrize("mode", ["update", "recreate", "minimize"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", r"/comments$", status=502, after_write=True),
        Fault("POST", r"/comments$", reset=True),
        Fault("POST", r"graphql", status=502),
        Fault("DELETE", status=502, after_write=True),
        Fault("PATCH", reset=True, after_write=True),
        Fault("GET", truncate=True),
    ],
    ids=lambda fault: f"{fault.method}-{fault.status or 'cut'}",
)
def test_every_mode_survives_a_fault_anywhere(server, mode, fault):
    thread(server, mode).put(KEY, body("first"), Stamp(1, 1, OLD))
    server.inject(Fault(**vars(fault)))
    thread(server, mode).put(KEY, body("second"), Stamp(2, 1, NEW))
    found = [c for c in server.comments(REPO, PULL) if key_of(c.body) == KEY]
    assert [c.body.splitlines()[-1] for c in found] == ["second"]


def test_without_leave_to_create_only_a_comment_that_is_there_is_edited(server):
    assert thread(server).put(KEY, body("green"), create=False) is None
    assert server.comments(REPO, PULL) == []
    thread(server).put(KEY, body("regressed"))
    outcome = thread(server).put(KEY, body("green"), create=False)
    assert outcome
    assert outcome.action == CommentAction.UPDATED
    assert texts(server) == ["green"]


# ---------------------------------------------------------------- the order of runs


def test_an_older_commits_gate_that_ends_last_does_not_write_over_a_newer_one(server):
    thread(server).put(KEY, body("new: passed"), Stamp(2, 1, NEW))
    outcome = thread(server).put(KEY, body("old: regressed"), Stamp(1, 1, OLD))
    assert outcome
    assert outcome.action == CommentAction.OUTDATED
    assert texts(server) == ["new: passed"]


def test_a_rerun_of_an_older_run_is_older_still_whatever_its_attempt(server):
    thread(server).put(KEY, body("new"), Stamp(2, 1, NEW))
    thread(server).put(KEY, body("old again"), Stamp(1, 9, OLD))
    assert texts(server) == ["new"]


def test_two_runs_on_one_commit_both_have_a_say(server):
    thread(server).put(KEY, body("asked for in a comment"), Stamp(5, 1, NEW))
    thread(server).put(KEY, body("re-run"), Stamp(4, 2, NEW))
    assert texts(server) == ["re-run"]


def test_attack_a_forged_stamp_of_the_future_does_not_silence_the_gate_of_the_head(server):
    # Another workflow of the same account can be made to post text that begins with our marker.
    forged = Stamp(10**17, 1, OLD).on(body("✅ Passed"))
    server.add_comment(REPO, PULL, forged, author="github-actions[bot]")
    thread(server).put(KEY, body("regressed"), Stamp(7, 1, NEW))
    assert texts(server) == ["regressed"]


def test_of_two_gates_that_look_at_once_the_newer_has_the_last_word(server):
    thread(server).put(KEY, body("before"), Stamp(1, 1, "c" * 40))
    # The older gate's write arrives after the newer one has written and looked.
    ours = server.comments(REPO, PULL)[0].id
    late = [Stamp(2, 1, OLD).on(body("old"))]

    def arrive(seconds: float) -> None:
        if seconds == 0.25:
            server.world.all_comments[ours].body = late.pop()

    patient = connect("t0ken", server.url, patience=Patience(settle=0.25, sleep=arrive))
    Thread(patient, REPO, PULL).put(KEY, body("new"), Stamp(3, 1, NEW))
    assert not late, "nobody waited for it"
    assert texts(server) == ["new"]


@pytest.mark.parametrize("stamps", [(Stamp(), Stamp()), (Stamp(2, 1, NEW), Stamp(3, 1, NEW))])
def test_of_equals_the_last_write_stands_and_nobody_fights(server, stamps):
    # Each writes over the other as soon as it has written: whoever insists does so for ever.
    ours, theirs = stamps
    thread(server).put(KEY, body("before"), Stamp(1, 1, NEW) if ours.run else ours)

    def other(method: str, path: str) -> None:
        (comment,) = server.comments(REPO, PULL)
        if method == "GET" and comment.body == ours.on(body("ours")):
            comment.body = theirs.on(body("theirs"))

    server.chaos = other
    outcome = thread(server).put(KEY, body("ours"), ours)
    assert outcome
    assert outcome.action == CommentAction.UPDATED
    assert texts(server) == ["theirs"]
    assert len(server.sent("PATCH")) == 1


def test_what_older_gates_undo_is_said_again_and_watched_for_longer_each_time(server):
    thread(server).put(KEY, body("before"), Stamp(1, 1, "c" * 40))
    late = [Stamp(run, 1, OLD).on(body("old")) for run in range(2, 6)]
    waits: list[float] = []

    def arrive(method: str, path: str) -> None:
        (comment,) = server.comments(REPO, PULL)
        if method == "GET" and late and "new" in comment.body:
            comment.body = late.pop()

    server.chaos = arrive
    mine = connect("t0ken", server.url, patience=Patience(settle=0.0, sleep=waits.append))
    Thread(mine, REPO, PULL).put(KEY, body("new"), Stamp(6, 1, NEW))
    assert texts(server) == ["new"]
    watched = [wait for wait in waits if wait]
    assert len(watched) == 3
    assert all(1 <= 2 * wait / 2**turn <= 2 for turn, wait in enumerate(watched))


def test_who_undoes_it_for_ever_is_an_error_in_the_end(server):
    thread(server).put(KEY, body("before"), Stamp(1, 1, OLD))

    def undone(method: str, path: str) -> None:
        for comment in server.comments(REPO, PULL):
            if method == "GET":
                comment.body = Stamp(1, 1, OLD).on(body("old"))

    server.chaos = undone
    with pytest.raises(GitHubFailure, match=r"octo/adapters#7 was undone 5 times"):
        thread(server).put(KEY, body("new"), Stamp(2, 1, NEW))
    assert len(server.sent("PATCH")) == 5


def test_a_late_second_comment_of_an_older_gate_is_taken_back(server):
    # It posts after the newer gate has posted, looked and gone: nobody else would tidy up.
    def newer_first(method: str, path: str) -> None:
        if method == "POST" and path.endswith("/comments") and not server.comments(REPO, PULL):
            text = Stamp(2, 1, NEW).on(body("new"))
            server.add_comment(REPO, PULL, text, author="github-actions[bot]")

    server.chaos = newer_first
    thread(server).put(KEY, body("old"), Stamp(1, 1, OLD))
    assert texts(server) == ["new"]


def test_twelve_pages_are_read(server):
    for index in range(1199):
        server.add_comment(REPO, PULL, f"comment {index}", author="alice")
    ours = server.add_comment(REPO, PULL, body("old"), author="github-actions[bot]")
    thread(server).put(KEY, body("new"))
    assert server.world.all_comments[ours.id].body == body("new")
    assert len(server.sent("GET", "/comments$")) == 24  # before the write, and after it


def test_slow_bodies_are_waited_for(server):
    server.inject(Fault("GET", "/comments$", drip=0.05), Fault("POST", "/comments$", drip=0.05))
    thread(server).put(KEY, body("x"))
    assert texts(server) == ["x"]


# ---------------------------------------------------------------- whose


def test_attack_another_workflows_marker_under_the_same_bot_is_left_alone(server):
    # A second gate on the same adapters, and a workflow that is none of ours.
    theirs = [body("nightly", "nightly gate"), "<!-- Sticky Pull Request Comment -->\n<b>x</b>"]
    for text in theirs:
        server.add_comment(REPO, PULL, text, author="github-actions[bot]")
    thread(server).put(KEY, body("ours"))
    thread(server, name="nightly gate").put(KEY, body("changed", "nightly gate"))
    assert texts(server) == ["changed", "<b>x</b>", "ours"]
    assert thread(server).keys() == {KEY}


@pytest.mark.parametrize("name", ["", "a-->b", "x" * 61, "a\nb", "<!--", "-a"])
def test_attack_a_name_that_ends_the_html_comment_is_refused(name):
    with pytest.raises(InputError, match="no name for a gate"):
        marker(KEY, name)


def test_legs_of_a_matrix_keep_to_their_own_comments(server):
    def leg(index: int) -> None:
        key = f"adapter-{index}"
        text = f"{marker(key)}\n{key}\n"
        Thread(client(server), REPO, PULL).put(key, text, Stamp(1, 1, NEW))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(leg, range(6)))
    assert sorted(texts(server)) == [f"adapter-{index}" for index in range(6)]
