"""Check runs and commit statuses, the tokens that may make them, and the word on the way."""

from __future__ import annotations

import threading
import time
import traceback
from typing import Any

import pytest

from adapterbot.commands.audience import Audience, audience_for
from adapterbot.commands.herald import Herald
from adapterbot.context import Activity, Context
from adapterbot.errors import GitHubFailure, InputError
from adapterbot.gh.checks import CheckResult, Checks, Conclusion
from adapterbot.gh.client import HURRIED, Client, Patience, connect
from adapterbot.gh.workflow import Level, Note
from adapterbot.marker import Stamp, key_of, marker
from adapterbot.publishing import CheckMode, CommentMode, CommentWhen, Publishing
from adapterbot.records import Report, Source
from tests.github_server import Fault, GitHubServer
from tests.golden.reports import REPORTS

REPO, PULL, HEAD = "octo/adapters", 7, "c" * 40
RUNS = r"/check-runs"


@pytest.fixture
def server(github: GitHubServer) -> GitHubServer:
    github.add_pull(REPO, PULL, head_sha=HEAD)
    return github


def client(server: GitHubServer, token: str = "t0ken") -> Client:
    return connect(token, server.url, patience=Patience(first_wait=0.01, settle=0.0))


def checks(server: GitHubServer, mode: str = "auto", token: str = "t0ken") -> Checks:
    return Checks(client(server, token), REPO, HEAD, CheckMode(mode), run="12.1", url="https://x/1")


def result(*notes: Note, conclusion: Conclusion = Conclusion.FAILURE) -> CheckResult:
    return CheckResult(conclusion, "Regressed", "much to read", notes)


# ---------------------------------------------------------------- check runs


def test_a_check_lives_from_queued_to_completed_on_the_head_commit(server):
    mine = checks(server)
    mine.open("adapterbot", "Waiting", queued=True)
    (run,) = server.check_runs
    assert (run["status"], run["head_sha"], run["details_url"]) == ("queued", HEAD, "https://x/1")
    mine.open("adapterbot", "Evaluating, 40 %", queued=False)
    assert (run["status"], run["output"]["title"]) == ("in_progress", "Evaluating, 40 %")
    mine.close("adapterbot", result())
    assert (run["status"], run["conclusion"]) == ("completed", "failure")
    assert len(server.check_runs) == 1
    assert mine.annotate


def test_notes_stand_on_their_lines_fifty_to_a_request(server):
    many = [Note(Level.WARNING, f"row {i}", "soup.yaml", i + 1, "lock drift") for i in range(120)]
    checks(server).close("adapterbot", result(*many, Note(Level.ERROR, "of no file")))
    (run,) = server.check_runs
    assert [note["start_line"] for note in run["annotations"]] == list(range(1, 121))
    assert {note["annotation_level"] for note in run["annotations"]} == {"warning"}
    assert [len(r.body["output"]["annotations"]) for r in server.requests] == [50, 50, 20]


@pytest.mark.parametrize("request_with_notes", [1, 2])
def test_attack_notes_that_github_will_not_have_do_not_keep_the_verdict_away(
    server, request_with_notes
):
    """Files and lines of a report may be a stranger's, and one bad note refuses all of them."""
    mine = checks(server)
    mine.open("adapterbot", "Evaluating", queued=False)
    bad = [{"resource": "CheckRun", "code": "invalid", "field": "annotations"}]
    for _ in range(request_with_notes - 1):
        server.inject(Fault("PATCH", "/check-runs/", delay=0.01))  # the first goes through
    server.inject(Fault("PATCH", "/check-runs/", 422, "Validation Failed", errors=bad))
    notes = [Note(Level.ERROR, "drifted", file="soup.yaml", line=i + 1) for i in range(60)]
    mine.close("adapterbot", result(*notes))
    (run,) = server.check_runs
    assert (run["status"], run["conclusion"]) == ("completed", "failure")
    assert not mine.annotate  # so that the log shows them


@pytest.mark.parametrize("after_write", [False, True])
@pytest.mark.parametrize("fault", ["502", "reset"])
def test_a_check_whose_creation_got_no_answer_is_made_once(server, fault, after_write):
    wrong = {"status": 502} if fault == "502" else {"reset": True}
    server.inject(Fault("POST", RUNS, after_write=after_write, **wrong))
    mine = checks(server)
    mine.open("adapterbot", "Waiting", queued=True)
    mine.close("adapterbot", result())
    (run,) = server.check_runs
    assert run["conclusion"] == "failure"


def test_a_check_that_the_last_attempt_made_is_no_failure(server):
    """It was reported as failed, and the check that GitHub made stayed in progress for ever."""
    server.inject(
        Fault("POST", RUNS, status=502, times=4), Fault("POST", RUNS, status=502, after_write=True)
    )
    mine = checks(server)
    mine.open("adapterbot", "Waiting", queued=True)
    mine.close("adapterbot", result())
    (run,) = server.check_runs
    assert (run["status"], run["conclusion"]) == ("completed", "failure")
    assert len(server.sent("POST", RUNS)) == 5


def test_a_check_that_no_attempt_made_is_looked_for_and_a_failure(server):
    server.inject(Fault("POST", RUNS, status=502, times=5))
    with pytest.raises(GitHubFailure, match=r"creating the check 'adapterbot' .*tried 5 times"):
        checks(server).open("adapterbot", "Waiting", queued=True)
    assert server.check_runs == []


def test_an_earlier_attempts_check_is_not_taken_for_ours(server):
    # After "Re-run", the check of the first attempt is still there, and ended.
    first = Checks(client(server), REPO, HEAD, run="12.1")
    first.close("adapterbot", result())
    again = Checks(client(server), REPO, HEAD, run="12.2")
    server.inject(Fault("POST", RUNS, status=502))
    again.open("adapterbot", "Evaluating", queued=False)
    assert [run["status"] for run in server.check_runs] == ["completed", "in_progress"]


def test_a_summary_beyond_githubs_bound_is_cut_and_says_so(server):
    long = CheckResult(Conclusion.SUCCESS, "Passed", "ä line\n" * 20_000)
    checks(server).close("adapterbot", long)
    summary = server.check_runs[0]["output"]["summary"]
    assert len(summary.encode()) <= 65_535
    assert summary.endswith("The rest did not fit.\n")


# ---------------------------------------------------------------- where checks are not permitted


def test_a_commit_status_where_checks_are_not_permitted(server):
    server.add_token("no-checks", forbidden=("checks/",))
    mine = checks(server, token="no-checks")
    mine.open("adapterbot", "Evaluating", queued=False)
    mine.close("adapterbot", result())
    assert [(s["state"], s["context"], s["sha"]) for s in server.statuses] == [
        ("pending", "adapterbot", HEAD),
        ("failure", "adapterbot", HEAD),
    ]
    assert len(server.sent("POST", RUNS)) == 1  # refused once, and not asked for again
    assert not mine.annotate


def test_neither_is_fine_when_nobody_insists_and_says_what_to_add(server):
    server.add_token("reader", read_only=True)
    mine = checks(server, token="reader")
    mine.open("adapterbot", "Evaluating", queued=False)
    mine.close("adapterbot", result())
    assert server.statuses == server.check_runs == []
    assert len(server.requests) == 2
    assert "checks: write" in mine.refusals[0]
    assert "statuses: write" in mine.refusals[1]


@pytest.mark.parametrize(
    ("mode", "line"), [("run", "checks: write"), ("status", "statuses: write")]
)
def test_a_missing_permission_is_named_when_somebody_insists(server, mode, line):
    server.add_token("reader", read_only=True)
    with pytest.raises(InputError) as caught:
        checks(server, mode, "reader").open("adapterbot", "Evaluating", queued=False)
    assert f"`permissions: {line}`" in (caught.value.fix or "")


def test_what_github_says_of_other_tokens_permissions_is_passed_on(server):
    message = "Resource not accessible by personal access token"
    headers = {"X-Accepted-GitHub-Permissions": "checks=write"}
    server.inject(Fault("POST", RUNS, status=403, message=message, headers=headers))
    with pytest.raises(InputError, match="GitHub accepts checks=write"):
        checks(server, "run").open("adapterbot", "Evaluating", queued=False)


def test_a_classic_token_may_make_statuses_only(server):
    said = "You must authenticate via a GitHub App."
    server.inject(Fault("POST", RUNS, status=403, message=said))
    mine = checks(server)
    mine.close("adapterbot", result(conclusion=Conclusion.CANCELLED))
    assert [s["state"] for s in server.statuses] == ["error"]


# ---------------------------------------------------------------- tokens


def test_secrets_are_in_no_repr_and_no_traceback(server):
    token = "-".join(("ghp", "very", "secret"))
    mine = client(server, token)
    thing = Checks(mine, REPO, HEAD)
    herald = herald_of(server, lambda *, hurried: mine)
    mute = audience_for(herald.audience.context, Publishing(), {"GITHUB_TOKEN": token})
    shown = [mine, thing, herald, mute, mine.api.requester.auth]
    assert token not in "".join(map(repr, shown))
    with pytest.raises(InputError) as caught:
        thing.open("adapterbot", "x", queued=True)
    assert token not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("api", "graphql"),
    [
        ("https://api.github.com", "https://api.github.com/graphql"),
        ("https://api.octocorp.ghe.com", "https://api.octocorp.ghe.com/graphql"),
        ("https://github.example/api/v3", "https://github.example/api/graphql"),
    ],
)
def test_graphql_is_beside_the_api_where_nobody_says_where(api, graphql):
    assert connect("t0ken", api).api.requester.graphql_url == graphql


def test_a_second_host_is_not_told_the_token():
    with pytest.raises(InputError, match="is not on the host of"):
        connect("t0ken", "https://api.github.com", graphql_url="https://evil.example/graphql")


# ---------------------------------------------------------------- the word on the way


def herald_of(server: GitHubServer, connected=None, **changes: Any) -> Herald:
    context = Context(
        activity=Activity.GATE,
        reason="",
        event="pull_request",
        repository=REPO,
        pull_request=PULL,
        head_sha=HEAD,
        can_comment=True,
        run_id=12,
        run_attempt=1,
    )
    context = context.model_copy(update=changes.pop("context", {}))
    publishing = Publishing(**changes.pop("publishing", {}))
    connected = connected or (lambda *, hurried: client(server))
    return Herald(Audience(context, publishing, connected), print, **changes)


def report(name: str = "passed") -> Report:
    source = Source(repository=REPO, pull_request=PULL, head_sha=HEAD)
    return REPORTS[name]().model_copy(update={"source": source})


def until(holds, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def bodies(server: GitHubServer) -> list[str]:
    return [comment.body for comment in server.comments(REPO, PULL)]


def test_a_running_gate_says_how_far_it_is_at_most_once_in_thirty_seconds(server):
    now = [100.0]
    herald = herald_of(server, clock=lambda: now[0])
    herald.began([("dates", "adapters/dates")], partial=False)
    until(lambda: bodies(server))
    for step in range(1, 41):  # forty words within the thirty seconds
        herald.at("dates", "answering the suite with both adapters", step / 100)
        now[0] += 0.7
    time.sleep(0.1)
    assert len(server.sent("PATCH", "/comments/")) == 0
    now[0] += 3
    herald.at("dates", "answering the suite with both adapters", 0.40)
    until(lambda: "Evaluating, 40\N{NARROW NO-BREAK SPACE}%" in bodies(server)[0])
    until(lambda: any("Evaluating, 40" in c["output"]["title"] for c in server.check_runs))
    assert len(server.sent("PATCH", "/comments/")) == 1
    herald.ended(report())
    assert "✅" in bodies(server)[0]
    assert [thread.name for thread in threading.enumerate() if thread.name == "herald"] == []


def test_the_first_word_waits_for_the_processor_to_be_free_and_no_later_one_is_hurried(server):
    now = [100.0]
    herald = herald_of(server, clock=lambda: now[0], grace=10.0)
    herald.began([("dates", "adapters/dates")], partial=False)
    herald.at("dates", "checking the lock")
    time.sleep(0.1)
    assert server.requests == []
    herald.free()
    until(lambda: bodies(server) and len(server.check_runs) == 2)
    herald.at("dates", "answering the suite with both adapters", 0.5)
    herald.free()
    time.sleep(0.1)
    assert server.sent("PATCH") == []
    herald.ended(report())


def test_a_gate_that_takes_long_to_begin_its_work_says_so_all_the_same(server):
    now = [100.0]
    herald = herald_of(server, clock=lambda: now[0], grace=10.0)
    herald.began([("dates", "adapters/dates")], partial=False)
    now[0] += 10.0
    herald.at("dates", "loading the base model")
    until(lambda: bodies(server))
    herald.ended(report())


def test_a_word_that_cannot_be_said_costs_the_gate_nothing(server):
    server.faults.append(Fault("POST", "/comments$", status=502, times=3))
    said: list[str] = []
    fast = Patience(attempts=3, first_wait=0.001)
    herald = herald_of(server, lambda *, hurried: connect("t0ken", server.url, patience=fast))
    herald.say = said.append
    herald.began([("dates", "adapters/dates")], partial=False)
    until(lambda: said)
    assert "could not say how far we are" in said[0]
    assert herald.ended(report()).comments


def test_the_checks_are_ended_also_when_the_comment_could_not_be(server):
    server.add_token("no-comments", forbidden=("issues/",))
    herald = herald_of(server, lambda *, hurried: client(server, "no-comments"))
    with pytest.raises(InputError, match="lacks a permission"):
        herald.ended(report())
    assert {c["status"] for c in server.check_runs} == {"completed"}


def test_an_old_comment_that_cannot_be_folded_is_a_line_in_the_log(server, capsys):
    now = report()
    key = now.adapters[0].key
    text = Stamp(11, 1, "d" * 40).on(f"{marker(key)}\nof the run before")
    server.add_comment(REPO, PULL, text, author="github-actions[bot]")
    denied = {"type": "FORBIDDEN", "message": "Not yours\n::error::x"}

    def forbid(method: str, path: str) -> Fault | None:
        asked = path.endswith("/graphql") and len(server.sent("POST", "graphql")) == 1
        return Fault(status=200, errors=[denied]) if asked else None

    server.chaos = forbid
    told = herald_of(server, publishing={"comment": CommentMode.MINIMIZE}).ended(now)
    assert told.comments.keys() == {key}
    assert len(bodies(server)) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("an earlier comment stays as it is: GitHub refused while minimizing")
    assert {c["conclusion"] for c in server.check_runs} == {"success"}


@pytest.mark.parametrize("refused", ["/comments$", RUNS])
def test_what_github_refuses_of_one_adapter_keeps_nothing_from_the_others(server, refused):
    """Or an older comment would stay green, and the check that is required would wait for ever."""
    server.inject(Fault("POST", refused, 422, "Validation Failed"))
    both = report("several")
    with pytest.raises(GitHubFailure, match="Validation Failed"):
        herald_of(server).ended(both)
    first, *rest = [adapter.key for adapter in both.adapters]
    told = {key for text in bodies(server) if (key := key_of(text))}
    checks = {run["name"] for run in server.check_runs if run["status"] == "completed"}
    every = {f"adapterbot / {key}" for key in (first, *rest)} | {"adapterbot"}
    if refused == RUNS:
        assert (told, checks) == ({first, *rest}, every - {f"adapterbot / {first}"})
    else:
        assert (told, checks) == (set(rest), every)


@pytest.mark.parametrize("when", ["changes", "regressions"])
def test_nothing_is_created_on_the_way_unless_every_gate_comments(server, when):
    herald = herald_of(server, publishing={"when": CommentWhen(when)})
    herald.began([("dates", "adapters/dates")], partial=False)
    until(lambda: len(server.check_runs) == 2)
    assert bodies(server) == []
    herald.ended(report())


def test_a_merge_group_has_a_check_and_no_comment(server):
    herald = herald_of(
        server, context={"event": "merge_group", "can_comment": False, "pull_request": None}
    )
    herald.began([("dates", "adapters/dates")], partial=False)
    told = herald.ended(report())
    assert bodies(server) == []
    assert told.comments == {}
    assert {c["name"] for c in server.check_runs} == {"adapterbot", "adapterbot / dates"}
    assert {c["conclusion"] for c in server.check_runs} == {"success"}


def test_a_leg_of_a_matrix_speaks_of_its_own_adapter_only(server):
    other = server.add_comment(
        REPO, PULL, "<!-- adapterbot:other -->\nregressed", author="github-actions[bot]"
    )
    leg = report().model_copy(update={"partial": True})
    herald_of(server).ended(leg)
    assert server.world.all_comments[other.id].body.endswith("regressed")
    assert [c["name"] for c in server.check_runs] == ["adapterbot / dates"]


def test_a_job_that_is_ended_says_so_in_its_last_seconds(server):
    from adapterbot.errors import OurFailure
    from adapterbot.unjudged import stopped

    stop = stopped([("dates", "adapters/dates")], Source(), OurFailure("the job was ended"))
    hasty: list[bool] = []

    def connected(*, hurried: bool) -> Client:
        hasty.append(hurried)
        return connect("t0ken", server.url, patience=HURRIED, timeout=1)

    herald = herald_of(server, connected)
    herald.began([("dates", "adapters/dates")], partial=False)
    until(lambda: len(server.check_runs) == 2)
    server.inject(Fault("GET", "/comments$", status=502))
    herald.ended(stop, hurried=True)
    assert hasty[-1]
    assert "the job was ended" in bodies(server)[0]
    assert {c["conclusion"] for c in server.check_runs} == {"cancelled"}


def test_a_limit_that_asks_for_an_hour_ends_the_posting_now(server):
    server.inject(Fault("GET", status=429, headers={"Retry-After": "3600"}, times=9))
    with pytest.raises(GitHubFailure, match="asks to wait 3600 s"):
        herald_of(server).ended(report())
