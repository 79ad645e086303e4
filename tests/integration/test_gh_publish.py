"""Publishing a report that another run made: what is believed, what is refused, what is posted.

In this process, over HTTP, with the events that GitHub would send.
"""

from __future__ import annotations

import io
import json
import stat
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbot.commands import publish
from adapterbot.commands.report_files import exit_code, read_report, results_path
from adapterbot.errors import AdapterbotError, InputError
from adapterbot.gh.artifacts import unpack
from adapterbot.gh.client import Patience
from adapterbot.publishing import CheckMode, CommentMode, CommentWhen, Publishing
from adapterbot.records import Outcome, Report, Source, Stage
from tests.github_server import Fault, GitHubServer
from tests.golden.reports import REPORTS

REPO, FORK, PULL, RUN = "octo/adapters", "stranger/adapters", 7, 4711
HEAD = "c" * 40
SERVER_URL = "https://github.example"
RUN_URL = f"{SERVER_URL}/{REPO}/actions/runs/{RUN}"


@pytest.fixture
def server(github: GitHubServer) -> GitHubServer:
    github.add_pull(REPO, PULL, head_sha=HEAD, head_repository=FORK, head_ref="better")
    return github


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    hasty = partial(Patience, first_wait=0.01, settle=0.0)
    monkeypatch.setattr("adapterbot.gh.client.Patience", hasty)


def report(name: str = "regressed", **source: Any) -> Report:
    told = {
        "repository": REPO,
        "pull_request": PULL,
        "head_sha": HEAD,
        "run_url": RUN_URL,
        **source,
    }
    return REPORTS[name]().model_copy(update={"source": Source(**told)})


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes | str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return packed.getvalue()


def workflow_run(**changes: Any) -> dict[str, Any]:
    run = {
        "id": RUN,
        "run_attempt": 1,
        "event": "pull_request",
        "head_sha": HEAD,
        "head_branch": "better",
        "head_repository": {"full_name": FORK},
        "pull_requests": [],  # as GitHub has it for forks
        **changes,
    }
    return {"action": "completed", "workflow_run": run, "repository": {"full_name": REPO}}


@pytest.fixture
def environment(tmp_path: Path, server: GitHubServer) -> Callable[..., dict[str, str]]:
    def make(event: str = "workflow_run", payload: Any = None, **more: str) -> dict[str, str]:
        path = tmp_path / "event.json"
        path.write_text(json.dumps(payload if payload is not None else workflow_run()))
        for name in ("output", "summary"):
            (tmp_path / name).write_text("")
        return {
            "GITHUB_EVENT_NAME": event,
            "GITHUB_EVENT_PATH": str(path),
            "GITHUB_API_URL": server.url,
            "GITHUB_SERVER_URL": SERVER_URL,
            "GITHUB_REPOSITORY": REPO,
            "GITHUB_RUN_ID": "5000",  # the run that posts
            "GITHUB_TOKEN": "t0ken",
            "GITHUB_OUTPUT": str(tmp_path / "output"),
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
            "RUNNER_TEMP": str(tmp_path),
            **more,
        }

    return make


def run(environment: dict[str, str], **publishing: Any):
    return publish.run(None, None, Publishing(**publishing), environment=environment)


def upload(server: GitHubServer, told: Report | bytes, name: str = "adapterbot-report", **more):
    content = told if isinstance(told, bytes) else told.model_dump_json().encode()
    return server.world.add_artifact(REPO, RUN, name, zipped(("report.json", content)), **more)


def comments(server: GitHubServer, number: int = PULL) -> list[str]:
    return [comment.body for comment in server.comments(REPO, number)]


def test_results_of_another_version_in_the_folder_are_bad_input_and_named(
    server, environment, tmp_path
):
    upload(server, report())
    key = report().adapters[0].key
    for side in ("baseline", "candidate"):
        old = results_path(tmp_path / "adapterbot", key, side)
        old.parent.mkdir(parents=True, exist_ok=True)
        old.write_text('{"version": 2, "tool": "adapterbot 9.9.0"}\n')
    written = run(environment())
    assert exit_code(written.report) == 2
    (comment,) = comments(server)
    assert "was written by adapterbot 9.9.0, which this one" in comment
    assert "write it again with this one, or remove it" in comment


# ---------------------------------------------------------------- the way it should go


def test_the_report_of_a_forks_run_is_posted_on_its_pull_request(server, environment, tmp_path):
    upload(server, report())
    written = run(environment())
    assert written.report.adapters[0].verdict.outcome is Outcome.REGRESSED
    (comment,) = comments(server)
    key = written.report.adapters[0].key
    assert comment.splitlines()[:2] == [
        f"<!-- adapterbot:{key} -->",
        f"<!-- adapterbot-run:{RUN}.1 head:{HEAD} -->",
    ]
    assert RUN_URL in comment  # of the gate, not of the run that posts
    ends = {check["name"]: check["conclusion"] for check in server.check_runs}
    assert ends == {"adapterbot": "failure", f"adapterbot / {key}": "failure"}
    assert {check["head_sha"] for check in server.check_runs} == {HEAD}
    assert "regressed" in (tmp_path / "output").read_text()


def test_of_a_rerun_the_newest_artifact_is_posted(server, environment):
    upload(server, report("regressed"))
    upload(server, report("passed"))
    run(environment(payload=workflow_run(run_attempt=2)))
    (comment,) = comments(server)
    assert "✅" in comment.splitlines()[2]


def test_legs_of_a_matrix_are_posted_each_to_its_own(server, environment):
    for index, section in enumerate(REPORTS["several"]().adapters):
        leg = report("several").model_copy(update={"adapters": (section,), "partial": True})
        upload(server, leg, f"adapterbot-report-{index}")
    older = server.add_comment(
        REPO, PULL, "<!-- adapterbot:not-here -->\nx", author="github-actions[bot]"
    )
    run(environment())
    assert len(comments(server)) == 1 + len(REPORTS["several"]().adapters)
    assert server.world.all_comments[older.id].body.endswith("x")


def test_more_adapters_than_a_report_holds_are_refused_and_none_is_dropped(server, environment):
    for leg in range(2):
        told = report("passed")
        many = (told.adapters[0].model_copy(update={"key": f"a{leg}-{i}"}) for i in range(33))
        told = told.model_copy(update={"adapters": tuple(many), "partial": True})
        upload(server, told, f"adapterbot-report-{leg}")
    run(environment())
    (comment,) = comments(server)
    assert "judge 66 adapters" in comment
    assert {check["conclusion"] for check in server.check_runs} == {"failure"}


def leg(index: int, **changes: Any) -> Report:
    told = report("regressed")
    section = told.adapters[0].model_copy(update={"key": f"a{index}", **changes})
    return told.model_copy(update={"adapters": (section,), "partial": True})


def test_legs_that_are_too_large_together_are_cut_and_all_posted(server, environment):
    """Each fits by itself; as one report they would not be read again."""
    text = "word " * 800
    long = report().adapters[0].samples[0].model_copy(update={"prompt": text, "expected": text})
    for index in range(3):
        upload(server, leg(index, samples=(long,) * 900), f"adapterbot-report-{index}")
    written = run(environment())
    assert read_report(written.report_path).adapters == written.report.adapters
    assert [section.key for section in written.report.adapters] == ["a0", "a1", "a2"]
    assert len(comments(server)) == 3
    assert all("small enough to be published" in comment for comment in comments(server))


def test_attack_legs_full_of_what_cannot_be_cut_are_refused_before_they_fill_the_memory(
    server, environment
):
    """All that a stranger may upload takes gigabytes: the job would be killed without a word, and
    an older comment stay green."""
    stages = (Stage(name="x", seconds=0.0),) * 130_000
    for index in range(3):
        upload(server, leg(index, stages=stages), f"adapterbot-report-{index}")
    run(environment())
    (comment,) = comments(server)
    assert "would be larger than" in comment
    assert len(server.sent("GET", "/zip$")) == 2


def test_the_link_to_what_was_left_out_is_the_artifact(server, environment):
    told = report()
    long = told.adapters[0].samples[0].model_copy(update={"baseline_output": "word\n" * 900})
    sections = (told.adapters[0].model_copy(update={"samples": (long,) * 200}),)
    upload(server, told.model_copy(update={"adapters": sections}))
    run(environment())
    (comment,) = comments(server)
    assert len(comment.encode()) <= 65_000
    assert "Left out to fit" in comment
    assert f"{RUN_URL}#artifacts" in comment


def test_of_pull_requests_from_one_branch_to_two_bases_each_gets_its_own_result(
    server, environment
):
    """The second's result was refused, and said to be so on the first, over the first's own."""
    server.add_pull(
        REPO, 9, head_sha=HEAD, head_repository=FORK, head_ref="better", base_ref="next"
    )
    upload(server, report("passed"))
    run(environment())
    upload(server, report("regressed", pull_request=9))
    run(environment())
    ((first,), (second,)) = comments(server), comments(server, 9)
    assert "✅" in first
    assert "Regressed" in second


# ---------------------------------------------------------------- foreign and replayed reports


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ({"pull_request": 8}, "pull_request"),
        ({"repository": FORK}, "repository"),
        ({"head_sha": "d" * 40}, "head_sha"),
        ({"run_url": f"{SERVER_URL}/{REPO}/actions/runs/4000"}, "run_url"),
        ({"run_url": None}, "run_url"),
    ],
    ids=["another-pull-request", "another-repository", "another-commit", "replayed", "no-run"],
)
def test_attack_a_foreign_or_replayed_report_is_refused_and_that_is_said(
    server, environment, source, field
):
    server.add_pull(REPO, 8, head_sha="d" * 40)
    upload(server, report("passed", **source))
    written = run(environment())
    assert written.report.adapters[0].verdict.outcome is Outcome.NOT_JUDGED
    assert comments(server, 8) == []
    (comment,) = comments(server)
    assert f"source.{field}" in comment
    assert "✅" not in comment
    assert {check["conclusion"] for check in server.check_runs} == {"failure"}


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ([".github/workflows/anything.yml"], "anything.yml"),
        ([f"{n}.txt" for n in range(120)] + [".github/actions/gate/action.yml"], "action.yml"),
        ([f"{n}.txt" for n in range(3000)], "3,000 files or more"),
        (["-old.txt", *(f"{n}.txt" for n in range(2999))], "3,000 files or more"),
    ],
    ids=["a workflow", "an action, on a later page", "more than GitHub lists", "one removed"],
)
def test_attack_a_report_of_a_forks_own_workflow_is_not_believed(server, environment, files, told):
    """GitHub runs a pull request's workflows as it has them. One that goes by the name of the
    gate's is enough to start the posting job, and uploads any report, of any verdict."""
    server.add_pull(REPO, PULL, head_sha=HEAD, head_repository=FORK, head_ref="better", files=files)
    upload(server, report("passed"))
    written = run(environment())
    assert written.report.adapters[0].verdict.outcome is Outcome.NOT_JUDGED
    (comment,) = comments(server)
    assert told in comment
    assert "✅" not in comment
    assert {check["conclusion"] for check in server.check_runs} == {"failure"}


def test_other_files_of_github_and_workflows_of_those_who_may_push_are_fine(server, environment):
    server.add_pull(
        REPO,
        PULL,
        head_sha=HEAD,
        head_repository=FORK,
        head_ref="better",
        files=[
            *[".github/adapterbot.yaml", "docs/.github/workflows/x.yml"],
            "-.github/workflows/old.yml",
        ],
    )
    upload(server, report("passed"))
    run(environment())
    (comment,) = comments(server)
    assert "✅" in comment
    server.add_pull(
        REPO, PULL, head_sha=HEAD, head_ref="better", files=[".github/workflows/gate.yml"]
    )
    run(environment(payload=workflow_run(head_repository={"full_name": REPO})))
    (comment,) = comments(server)
    assert "✅" in comment


@pytest.mark.parametrize(
    "changes",
    [
        {"head_sha": "d" * 40},
        {"head_branch": "other"},
        {"head_branch": None},
        {"head_repository": {"full_name": "stranger/other"}},
        {"head_repository": None},
    ],
    ids=["moved-on", "another-branch", "no-branch", "another-fork", "deleted-fork"],
)
def test_attack_a_run_that_is_not_about_the_head_finds_no_pull_request(
    server, environment, changes
):
    # Head repository and commit must match: the artifact's numbers are not asked.
    upload(server, report("passed"))
    run(environment(payload=workflow_run(**changes)))
    assert comments(server) == []
    assert server.check_runs == []


@pytest.mark.parametrize(
    "branch",
    [
        "x&state=closed#1",
        "a|@acme/team`<b>",
        "%0A%23",
        "$(touch owned);x",
        "evil\u202e\u200b",
        "é🎉",
    ],
)
def test_attack_a_branch_by_a_hostile_name_is_looked_for_and_never_shown(
    server, environment, tmp_path, capsys, branch
):
    server.add_pull(REPO, PULL, head_sha=HEAD, head_repository=FORK, head_ref=branch)
    upload(server, report("passed"))
    given = environment(payload=workflow_run(head_branch=branch))
    run(given)
    (asked,) = server.sent("GET", "/pulls$")
    assert dict(parse_qsl(asked.query))["head"] == f"stranger:{branch}"
    (comment,) = comments(server)
    assert "✅" in comment
    shown = capsys.readouterr()
    for text in (comment, (tmp_path / "summary").read_text(), shown.out, shown.err):
        assert branch not in text


@pytest.mark.parametrize("started_by", ["push", "workflow_dispatch", "pull_request_target"])
def test_a_run_that_no_pull_request_started_is_nothing_to_publish(server, environment, started_by):
    upload(server, report("passed"))
    run(environment(payload=workflow_run(event=started_by)))
    assert server.requests == []


# ---------------------------------------------------------------- what an artifact may hold


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def squeezed(method: int, content: str) -> bytes:
    info = zipfile.ZipInfo("report.json")
    info.compress_type = method
    return zipped((info, content))


def beyond(offset: int) -> bytes:
    """An archive whose list of files says, in zip64, that the one it has begins at `offset`."""
    archive = zipped(("report.json", "{}"))
    place = archive.rindex(b"PK\x01\x02")
    listed = bytearray(archive[place : place + 46])
    name = archive[place + 46 : place + 46 + len("report.json")]
    extra = struct.pack("<HHQ", 1, 8, offset)
    struct.pack_into("<H", listed, 30, len(extra))
    struct.pack_into("<L", listed, 42, 0xFFFFFFFF)
    whole = bytes(listed) + name + extra
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(whole), place, 0)
    return archive[:place] + whole + end


HARMFUL = {
    "zip-slip": zipped(("../../report.json", "{}"), ("report.json", "{}")),
    "absolute": zipped(("/etc/cron.d/x", "x"), ("report.json", "{}")),
    "backslashes": zipped(("..\\..\\x", "x"), ("report.json", "{}")),
    "drive": zipped(("C:/x", "x"), ("report.json", "{}")),
    "symlink": zipped((link("report.json"), "/etc/passwd")),
    "other-symlink": zipped((link("x"), "/etc/passwd"), ("report.json", "{}")),
    "bomb": zipped(("report.json", b"0" * (1 << 20))),
    "many": zipped(*((f"{i}.txt", "x") for i in range(200)), ("report.json", "{}")),
    "empty": zipped(("other.json", "{}")),
    "no-zip": b"PK\x03\x04 not an archive",
    "truncated": zipped(("report.json", "{}" * 100))[:60],
    "nested": zipped(("deep/report.json", "{}")),
    "lzma": squeezed(zipfile.ZIP_LZMA, "{}"),
    "begins-beyond-the-end": beyond(2**40),
    "begins-beyond-any-file": beyond(2**64 - 1),
    "broken-lzma": squeezed(zipfile.ZIP_LZMA, "{}" * 40).replace(b"\x5d", b"\xff", 1),
    "broken-bzip2": squeezed(zipfile.ZIP_BZIP2, "{}" * 40).replace(b"BZh", b"BZx"),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_attack_a_harmful_archive_is_refused_in_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        unpack(HARMFUL[name], "adapterbot-report", limit=1000)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_attack_a_bomb_whose_header_lies_is_bounded_while_it_is_read():
    archive = bytearray(zipped(("report.json", b"0" * (1 << 22))))
    place = archive.rindex(b"PK\x01\x02")
    archive[place + 24 : place + 28] = (100).to_bytes(4, "little")
    with pytest.raises(InputError):
        unpack(bytes(archive), "adapterbot-report", limit=1000)


@given(st.data())
def test_attack_no_byte_of_an_archive_can_make_us_fall_over_or_read_beyond_the_bound(data):
    method = data.draw(st.sampled_from([0, 8, 12, 14]))
    content = '{"a": "' + "x" * 50 + '"}'
    archive = bytearray(data.draw(st.sampled_from([squeezed(method, content), beyond(2**63)])))
    places = st.integers(0, len(archive) - 1)
    changes = data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6))
    for place, value in changes:
        archive[place] = value
    limit = data.draw(st.sampled_from([20, 1000]))
    with suppress(InputError):
        assert len(unpack(bytes(archive), "adapterbot-report", limit)) <= limit


def test_two_files_of_the_one_name_are_one_too_many():
    with pytest.warns(UserWarning, match="Duplicate"):
        archive = zipped(("report.json", "{}"), ("report.json", '{"a": 1}'))
    with pytest.raises(InputError, match="2 files named"):
        unpack(archive, "adapterbot-report", limit=1000)


@pytest.mark.parametrize(
    "content",
    [b"[]", b"{", b"\xff\xfe", b'{"version": 2}', json.dumps({"a": "x" * 9}).encode()],
    ids=["list", "cut", "no-utf8", "version", "fields"],
)
def test_attack_a_report_that_breaks_the_schema_is_said_on_the_pull_request(
    server, environment, content
):
    upload(server, content)
    written = run(environment())
    assert written.report.adapters[0].problem
    (comment,) = comments(server)
    assert "could not" in comment.lower()


def test_attack_a_claimed_size_saves_the_download(server, environment):
    upload(server, report(), claimed_size=17 << 20)
    run(environment())
    assert server.sent("GET", "/zip$") == []
    assert "is larger than" in comments(server)[0]


def test_no_artifact_is_said_too(server, environment):
    run(environment())
    assert "left no report" in comments(server)[0]


def test_the_token_is_not_shown_to_the_artifact_store(server, environment):
    upload(server, report("passed"))
    run(environment())
    (stored,) = server.sent("GET", "_store")
    assert stored.login is None
    assert stored.status == 200


def test_the_artifact_is_asked_for_with_our_token_and_not_by_netrc(
    server, environment, tmp_path, monkeypatch
):
    """A runner of one's own may have a `.netrc` for GitHub, and requests prefers it to a header."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {urlsplit(server.url).hostname} login someone password other\n")
    monkeypatch.setenv("NETRC", str(netrc))
    upload(server, report("passed"))
    run(environment())
    (asked,), (stored,) = server.sent("GET", "/zip"), server.sent("GET", "_store")
    assert asked.login == "github-actions[bot]"
    assert stored.login is None
    assert "✅" in comments(server)[0]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET", "/zip$", status=502),
        Fault("GET", "/zip$", reset=True),
        Fault("GET", "_store", reset=True),
        Fault("GET", "_store", truncate=True),
        Fault("GET", "_store", status=503),
        Fault("GET", "_store", drip=0.02),
        Fault("GET", "/artifacts$", status=500),
        Fault("GET", "/pulls$", truncate=True),
    ],
    ids=lambda fault: f"{fault.path}-{fault.status or 'cut'}",
)
def test_a_download_that_fails_is_repeated(server, environment, fault):
    upload(server, report("passed"))
    server.inject(Fault(**vars(fault)))
    run(environment())
    assert "✅" in comments(server)[0]


def test_a_page_in_place_of_an_artifacts_address_is_told(server, environment):
    upload(server, report("passed"))
    server.inject(Fault("GET", "/zip$", status=200, page=b"<title>Sign in</title>"))
    with pytest.raises(AdapterbotError, match=r"127\.0\.0\.1:\d+ does not answer as GitHub does"):
        run(environment())


def test_secrets_of_the_stores_address_are_in_no_error(server, environment):
    upload(server, report("passed"))
    server.inject(Fault("GET", "_store", reset=True, times=99))
    with pytest.raises(AdapterbotError) as caught:
        run(environment())
    seen = ""
    error: BaseException | None = caught.value
    while error is not None:
        seen += str(error) + repr(error)
        error = error.__cause__
    assert "s1gned" not in seen
    assert "t0ken" not in seen


# ---------------------------------------------------------------- what is posted, and when


@pytest.mark.parametrize(
    ("when", "name", "posted"),
    [
        ("always", "passed", True),
        ("changes", "passed", True),
        ("regressions", "passed", False),
        ("regressions", "regressed", True),
        ("regressions", "drift", True),
        ("regressions", "bad_input", True),
    ],
)
def test_when_decides_about_the_first_comment_only(server, environment, when, name, posted):
    upload(server, report(name))
    run(environment(), when=CommentWhen(when))
    assert bool(comments(server)) is posted
    # One that is there flips, whatever `when` says.
    upload(server, report("passed"))
    run(environment(), when=CommentWhen(when))
    if posted:
        keys = {comment.splitlines()[0] for comment in comments(server)}
        assert any("✅" in comment for comment in comments(server))
        assert len(keys) == len(comments(server))


def test_comments_off_leaves_checks_and_checks_off_leaves_comments(server, environment):
    upload(server, report("passed"))
    run(environment(), comment=CommentMode.OFF)
    assert comments(server) == []
    assert len(server.check_runs) == 2
    run(environment(), check=CheckMode.OFF)
    assert len(comments(server)) == 1
    assert len(server.check_runs) == 2


def test_pull_request_target_says_so_in_the_job_summary(tmp_path, environment, monkeypatch, capsys):
    # Nothing of it is trusted, so there is no comment; but whoever looks must find the reason.
    from adapterbot.cli import main

    given = environment("pull_request_target", {})
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main(["gate"])
    assert ended.value.code == 2
    assert "runs a stranger" in (tmp_path / "summary").read_text()
    assert "stranger" in capsys.readouterr().err
