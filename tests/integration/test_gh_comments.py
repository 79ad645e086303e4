"""The sticky comment, over HTTP, against a GitHub that fails, races and is judged by its own
description. Each test says which attack or accident it stops."""

import random
import ssl
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from threading import Barrier, Lock

import pytest
from _pytest.mark import ParameterSet
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from github import GithubException

from adapterbot.errors import GitHubFailure, InputError, OurFailure
from adapterbot.gh import lfs
from adapterbot.gh.answers import meaning
from adapterbot.gh.branches import Change, Placement
from adapterbot.gh.client import Client, Patience, connect
from adapterbot.gh.comments import CommentAction, CommentOutcome, Thread
from adapterbot.gh.remote import Remote
from adapterbot.marker import key_of, marker
from tests import programs
from tests.github_server import Fault, GitHubServer

REPO, PULL, KEY = "octo/adapters", 7, "dates"
ACTIONS = "github-actions[bot]"
COMMENTS = rf"/issues/{PULL}/comments$"


@pytest.fixture
def server(github: GitHubServer) -> GitHubServer:
    github.add_pull(REPO, PULL)
    return github


def client(server: GitHubServer, token: str = "t0ken", **changes) -> Client:
    return connect(token, server.url, patience=Patience(first_wait=0.01), **changes)


def body(text: str, key: str = KEY) -> str:
    return f"{marker(key)}\n{text}\n"


def put(client: Client, text: str, key: str = KEY, number: int = PULL) -> CommentOutcome:
    outcome = Thread(client, REPO, number).put(key, text)
    assert outcome
    return outcome


def upsert(server: GitHubServer, text: str, key: str = KEY, **changes) -> CommentOutcome:
    return put(client(server, **changes), body(text, key), key)


def texts(server: GitHubServer) -> list[str]:
    return [comment.body for comment in server.comments(REPO, PULL)]


# ---------------------------------------------------------------- one comment that stays


def test_created_then_unchanged_then_updated(server):
    first = upsert(server, "regressed")
    again = upsert(server, "regressed")
    fixed = upsert(server, "passed")
    assert [first.action, again.action, fixed.action] == list(
        map(CommentAction, ("created", "unchanged", "updated"))
    )
    assert first.url == again.url == fixed.url
    assert first.url.startswith(f"{server.url}/{REPO}/pull/{PULL}#issuecomment-")
    assert texts(server) == [body("passed")]
    # Unchanged content costs no write, and so no notification and no "edited" mark.
    assert len(server.sent("POST", COMMENTS)) == len(server.sent("PATCH")) == 1


def test_no_request_is_sent_that_the_work_does_not_need(server):
    upsert(server, "x")
    sent = [(r.method, r.operation or r.path) for r in server.requests]
    assert sent == [
        ("POST", "/graphql"),
        ("GET", "issues/list-comments"),
        ("POST", "issues/create-comment"),
        ("GET", "issues/list-comments"),
    ]
    assert all("per_page=100" in r.query for r in server.sent("GET"))


def test_each_adapter_key_has_its_own_comment(server):
    upsert(server, "a", key="dates")
    upsert(server, "b", key="dates.v2")
    upsert(server, "c", key="dates")
    assert texts(server) == [body("c", "dates"), body("b", "dates.v2")]


def test_several_keys_are_settled_in_one_go_and_the_account_is_asked_for_once(server):
    bodies = {key: body(key, key) for key in ("dates", "names")}
    thread = Thread(client(server), REPO, PULL)
    for key, text in bodies.items():
        thread.put(key, text)
    assert texts(server) == list(bodies.values())
    assert len(server.sent("POST", "graphql")) == 1


def test_our_keys_are_those_of_our_own_comments(server: GitHubServer) -> None:
    # The attack: a stranger pastes a marker, so that the gate edits or counts their comment.
    for key in ("a", "b"):
        upsert(server, key, key)
    server.add_comment(REPO, PULL, f"{marker('c')}\nforged", author="stranger")
    assert Thread(client(server), REPO, PULL).keys() == {"a", "b"}


@pytest.mark.parametrize("ending", ["\r\n", "\r"], ids=["crlf", "cr"])
def test_line_ends_that_github_rewrote_do_not_cause_an_edit_at_every_run(server, ending):
    stored = body("one\ntwo").rstrip().replace("\n", ending)
    server.add_comment(REPO, PULL, stored, author=ACTIONS)
    assert upsert(server, "one\ntwo").action == CommentAction.UNCHANGED
    assert texts(server) == [stored]


def test_the_comment_is_found_behind_three_pages_of_others(server):
    for index in range(230):
        server.add_comment(REPO, PULL, f"comment {index}", author="alice")
    ours = server.add_comment(REPO, PULL, body("old"), author=ACTIONS)
    for index in range(30):
        server.add_comment(REPO, PULL, f"later {index}", author="bob")
    assert upsert(server, "new").action == CommentAction.UPDATED
    assert server.world.all_comments[ours.id].body == body("new")
    # Three pages before the write, and three to see that it stands.
    assert len(server.sent("GET", COMMENTS)) == 6


def test_a_body_without_its_marker_is_never_posted_since_it_could_not_be_found_again(server):
    with pytest.raises(OurFailure, match="does not begin with its marker"):
        put(client(server), "no marker")
    with pytest.raises(OurFailure, match="does not begin with its marker"):
        put(client(server), body("x", "other"))
    assert server.requests == []


# ---------------------------------------------------------------- whose comment it is


def test_attack_marker_pasted_by_another_user_is_not_taken_for_ours(server):
    # mallory pastes our marker first: editing her comment would fail, trusting it would mislead.
    forged = server.add_comment(REPO, PULL, body("all green!"), author="mallory")
    assert upsert(server, "regressed").action == CommentAction.CREATED
    assert texts(server) == [forged.body, body("regressed")]


def test_attack_marker_of_another_bot_or_of_a_person_named_like_ours_is_ignored(server):
    # GraphQL may call us "github-actions": a person can own that name, and is not us.
    server.add_token("ghs_short", ACTIONS, viewer="github-actions")
    server.add_comment(REPO, PULL, body("all green!"), author="github-actions")
    server.add_comment(REPO, PULL, body("all green!"), author="other-app[bot]")
    assert upsert(server, "x", token="ghs_short").action == CommentAction.CREATED
    assert upsert(server, "y", token="ghs_short").action == CommentAction.UPDATED
    assert len(texts(server)) == 3


def test_an_app_token_of_unknown_kind_finds_its_own_comment(server):
    server.add_token("jwt", "our-app[bot]", viewer="our-app")
    assert upsert(server, "x", token="jwt").action == CommentAction.CREATED
    assert upsert(server, "y", token="jwt").action == CommentAction.UPDATED
    assert texts(server) == [body("y")]


def test_the_comment_of_a_deleted_account_is_nobodys(server):
    server.add_comment(REPO, PULL, body("old"), author="")
    assert upsert(server, "x").action == CommentAction.CREATED


def test_attack_marker_below_the_first_line_is_ignored(server):
    # A reply by our own account, or another workflow's comment, that quotes the marker.
    server.add_comment(REPO, PULL, f"> quoted\n{marker(KEY)}\nold", author=ACTIONS)
    assert upsert(server, "new").action == CommentAction.CREATED
    assert len(texts(server)) == 2


def test_a_personal_token_finds_its_own_comment(server):
    server.add_token("pat", "alice")
    server.add_comment(REPO, PULL, body("by the bot"), author=ACTIONS)
    assert upsert(server, "a", token="pat").action == CommentAction.CREATED
    assert upsert(server, "b", token="pat").action == CommentAction.UPDATED
    assert texts(server) == [body("by the bot"), body("b")]


def test_enterprise_server_prefix_reaches_rest_and_graphql():
    with GitHubServer(prefix="/api/v3") as server:
        server.add_token("t0ken")
        server.add_pull(REPO, PULL)
        assert upsert(server, "a").action == CommentAction.CREATED
        assert upsert(server, "b").action == CommentAction.UPDATED
        assert [r.path for r in server.sent("POST", "graphql")] == ["/api/graphql"] * 2
        assert server.violations == []


# ---------------------------------------------------------------- races


@pytest.mark.parametrize("same", [True, False], ids=["same-text", "own-text"])
def test_eight_racing_jobs_leave_exactly_one_comment(server, same):
    everyone_looked = Barrier(8)

    def hold_back(method: str, path: str) -> None:
        # No job posts before all of them have looked and found nothing.
        if method == "POST" and path.endswith("/comments"):
            everyone_looked.wait(timeout=60)

    def job(index: int) -> CommentOutcome:
        text = body("x" if same else f"job {index}")
        return put(client(server), text)

    server.chaos = hold_back
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(job, range(8)))
    assert len(server.sent("POST", COMMENTS)) == 8
    (left,) = server.comments(REPO, PULL)
    assert left.body in {body("x")} | {body(f"job {index}") for index in range(8)}
    assert all(outcome.url.endswith(f"-{left.id}") for outcome in outcomes)


def test_of_racing_creators_the_lowest_id_stays_with_the_newest_text(server):
    # Another job's comment appears between our look and our post.
    def other_job(method: str, path: str) -> None:
        if method == "POST" and path.endswith("/comments") and not texts(server):
            server.add_comment(REPO, PULL, body("older commit"), author=ACTIONS)

    server.chaos = other_job
    upsert(server, "newer commit")
    assert texts(server) == [body("newer commit")]


def test_duplicates_from_an_earlier_accident_are_tidied(server):
    first, *_ = [
        server.add_comment(REPO, PULL, body(text), author=ACTIONS) for text in ("one", "two", "six")
    ]
    assert upsert(server, "four").action == CommentAction.UPDATED
    assert [(c.id, c.body) for c in server.comments(REPO, PULL)] == [(first.id, body("four"))]
    assert upsert(server, "four").action == CommentAction.UNCHANGED


def test_a_comment_deleted_while_we_edit_it_is_posted_anew(server):
    ours = server.add_comment(REPO, PULL, body("old"), author=ACTIONS)
    server.chaos = lambda method, _: (
        server.world.all_comments.pop(ours.id, None) and None if method == "PATCH" else None
    )
    assert upsert(server, "new").action == CommentAction.CREATED
    assert texts(server) == [body("new")]


# ---------------------------------------------------------------- GitHub fails


def faults(**where) -> list[ParameterSet]:
    return [
        pytest.param(Fault(**where, status=502), id="502-before"),
        pytest.param(Fault(**where, status=502, after_write=True), id="502-after"),
        pytest.param(Fault(**where, reset=True), id="reset-before"),
        pytest.param(Fault(**where, reset=True, after_write=True), id="reset-after"),
        pytest.param(Fault(**where, truncate=True), id="cut-short"),
    ]


@pytest.mark.parametrize("fault", faults(method="POST", path=COMMENTS))
def test_a_post_without_a_clear_answer_leaves_one_comment(server, fault):
    # PyGithub's own retry posts again after a 502 that followed the write: two comments.
    server.inject(fault)
    assert upsert(server, "x").action == CommentAction.CREATED
    assert texts(server) == [body("x")]
    assert fault.times == 0


def test_a_post_is_never_sent_again_before_looking(server):
    server.inject(Fault("POST", COMMENTS, status=502))
    upsert(server, "x")
    methods = [r.method for r in server.requests if r.path.endswith("/comments")]
    assert methods == ["GET", "POST", "GET", "POST", "GET"]


@pytest.mark.parametrize("fault", faults(method="PATCH"))
def test_an_update_is_repeated_and_not_lost(server, fault):
    # PyGithub's own retry never repeats PATCH: one 502 leaves a stale green comment.
    server.add_comment(REPO, PULL, body("passed"), author=ACTIONS)
    server.inject(fault)
    assert upsert(server, "regressed").action == CommentAction.UPDATED
    assert texts(server) == [body("regressed")]
    assert len(server.sent("PATCH")) == (1 if fault.after_write or fault.truncate else 2)


@pytest.mark.parametrize("fault", faults(method="DELETE"))
def test_a_deletion_is_repeated_and_a_404_means_done(server, fault):
    for text in ("x", "x"):
        server.add_comment(REPO, PULL, body(text), author=ACTIONS)
    server.inject(fault)
    upsert(server, "x")
    assert texts(server) == [body("x")]


@pytest.mark.parametrize("fault", [*faults(method="GET"), *faults(method="POST", path="graphql")])
def test_a_failed_read_is_repeated(server, fault):
    server.inject(fault)
    assert upsert(server, "x").action == CommentAction.CREATED
    assert texts(server) == [body("x")]


def test_a_post_that_timed_out_after_the_write_leaves_one_comment(server):
    server.inject(Fault("POST", COMMENTS, delay=5))
    assert upsert(server, "x", timeout=1).action == CommentAction.CREATED
    assert texts(server) == [body("x")]
    assert len(server.sent("POST", COMMENTS)) == 1


def test_a_github_that_stays_down_is_our_failure_in_one_line(server):
    server.inject(Fault("GET", status=503, times=99))
    with pytest.raises(GitHubFailure, match=r"listing the comments of octo/adapters#7: status 503"):
        upsert(server, "x")
    assert len(server.sent("GET")) == 5


@pytest.mark.parametrize("page", [b"<html>Please log in</html>", b"", b"[]", b"{}", b"null"])
def test_a_page_in_githubs_place_is_named(page):
    """What a proxy says, or a server whose address is not its API's."""

    class Page(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{served.server_port}"
        with pytest.raises(GitHubFailure, match=r"does not answer as GitHub does.*/api/v3"):
            put(connect("t0ken", url), body("x"))
        served.shutdown()


SIGN_IN = b"<!doctype html>\n<html><head><title>Sign in &amp; surf</title></head></html>"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(status=200, page=SIGN_IN), "status 200 with a web page titled 'Sign in & surf'"),
        (Fault(status=200, page=b" <p>x"), "status 200 with a web page"),
        (Fault(status=200, page=b""), "status 200 with an empty page"),
        (Fault(status=200, page=b"OK \x1b[2J"), r"status 200 with 'OK \x1b[2J'"),
        (Fault(status=403, page=SIGN_IN), "status 403 with a web page titled 'Sign in & surf'"),
        (
            Fault(status=302, headers={"Location": "http://portal.example/login?token=x"}),
            "status 302, a redirection to http://portal.example/login",
        ),
        (
            Fault(status=301, headers={"Location": "https://ghe.example/api/v3"}),
            "status 301, a redirection to https://ghe.example/api/v3",
        ),
        (Fault(status=302, headers={"Location": "/login"}), "a redirection to http://127.0.0.1:"),
        (Fault(status=301), "a redirection to nowhere"),
        (
            Fault(status=302, headers={"Location": "http://me:secret@portal.example/login"}),
            "a redirection to http://portal.example/login",
        ),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_answers_in_githubs_place_is_named_and_told(server, method, fault, said):
    """PyGithub takes each of these for what it asked for, and stumbles over it later."""
    mine = client(server)
    assert mine.login
    server.inject(replace(fault, method=method))
    with pytest.raises(GitHubFailure) as caught:
        put(mine, body("x"))
    assert str(caught.value).startswith(
        f"{server.url.removeprefix('http://')} does not answer as GitHub does while "
    )
    assert said in str(caught.value)
    assert "check GITHUB_API_URL" in str(caught.value.fix)
    assert "token=" not in str(caught.value)
    assert len(server.sent(method)) == (1 if method == "GET" else 2)  # none is asked again


def test_a_busy_front_ends_page_is_waited_for(server):
    unicorn = b"<html><title>Unicorn!</title></html>"
    server.inject(
        Fault("GET", status=502, page=unicorn),
        Fault("GET", status=429, page=unicorn),
        Fault("GET", status=403, page=unicorn, headers={"Retry-After": "2"}),
    )
    mine, waits = limited(server)
    put(mine, body("x"))
    assert texts(server) == [body("x")]
    assert len(waits) == 3


@pytest.mark.parametrize(("method", "status"), [("POST", 307), ("POST", 308), ("GET", 301)])
def test_a_name_that_the_repository_no_longer_has_is_no_success(server, method, status):
    """PyGithub takes the 307 for the comment, and follows the 301 without its query: the list is
    then of everything."""
    moved = {"Location": f"{server.url}/repositories/1/issues/7/comments"}
    server.inject(Fault(method, COMMENTS, status, "Moved", headers=moved))
    with pytest.raises(InputError, match="no longer in use while") as caught:
        upsert(server, "x")
    assert caught.value.fix == "name the repository as it is called now"


def test_a_certificate_that_nobody_vouches_for_is_said_at_once(tmp_path, monkeypatch):
    programs.git_lfs(tmp_path, monkeypatch)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(
            name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1)
        )
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    pem = key.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "both.pem").write_bytes(pem + made.public_bytes(encoding))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    waits: list[float] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as served:
        served.socket = context.wrap_socket(served.socket, server_side=True)
        served.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=served.serve_forever, daemon=True).start()
        url = f"https://127.0.0.1:{served.server_port}"
        mine = connect("t0ken", url, patience=Patience(sleep=waits.append))
        with pytest.raises(InputError, match="is not trusted while asking who") as caught:
            mine.login  # noqa: B018
        remote = Remote(f"{url}/octo/adapters.git")
        wanted = Placement("b", None, "main", "0" * 40, Change({}, "a", bool), "m")
        with pytest.raises(InputError, match=r"is not trusted: .*set GIT_SSL_CAINFO"):
            lfs.place(remote, wanted, frozenset())
        # A company's own authority, which git is told of in the environment.
        monkeypatch.setenv("GIT_SSL_CAINFO", str(tmp_path / "both.pem"))
        with pytest.raises(GitHubFailure, match="returned error: 501"):
            lfs.place(remote, wanted, frozenset())
        served.shutdown()
    assert "REQUESTS_CA_BUNDLE" in str(caught.value.fix)
    assert waits == []


def test_a_post_that_fails_every_time_ends(server):
    server.inject(Fault("POST", COMMENTS, status=500, times=99))
    with pytest.raises(GitHubFailure, match=r"posting a comment on octo/adapters#7"):
        upsert(server, "x")
    assert len(server.sent("POST", COMMENTS)) == 5


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_last_attempt_that_came_through_is_no_failure(server, method):
    """The job would fail, and say so, beside a comment that stands."""
    if method == "PATCH":
        upsert(server, "old")
    server.inject(
        Fault(method, "/comments", status=502, times=4),
        Fault(method, "/comments", status=502, after_write=True),
    )
    upsert(server, "x")
    assert texts(server) == [body("x")]
    assert len(server.sent(method, "/comments")) == 5


def test_no_server_at_all():
    with GitHubServer() as server:
        url = server.url
    with pytest.raises(GitHubFailure, match="did not answer while asking who the token belongs to"):
        connect("t0ken", url, patience=Patience(first_wait=0.001)).login  # noqa: B018


def test_a_proxy_that_is_not_there_is_no_trouble_of_githubs(server, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(GitHubFailure, match="ProxyError") as caught:
        connect("t0ken", server.url, patience=Patience(first_wait=0.001)).login  # noqa: B018
    assert "NO_PROXY" in str(caught.value.fix)


def test_racing_jobs_under_random_faults_converge_in_every_round(server):
    """Every sixth request fails in some way; the seed makes a failure repeatable in kind."""
    dice = random.Random(7)
    lock = Lock()

    def chaos(method: str, path: str) -> Fault | None:
        with lock:
            return dice.choice(
                [
                    Fault(status=502),
                    Fault(status=502, after_write=True),
                    Fault(reset=True),
                    Fault(reset=True, after_write=True),
                    Fault(truncate=True),
                    Fault(status=429, headers={"Retry-After": "0"}),
                    *[None] * 30,
                ]
            )

    server.chaos = chaos
    patience = Patience(attempts=9, first_wait=0.001)

    def job(key: str) -> str:
        mine = connect("t0ken", server.url, patience=patience)
        return put(mine, body(f"round {key}", key), key).url

    for number in range(10):
        key = f"round-{number}"
        with ThreadPoolExecutor(4) as pool:
            urls = set(pool.map(job, [key] * 4))
        (left,) = (c for c in server.comments(REPO, PULL) if key_of(c.body) == key)
        assert left.body == body(f"round {key}", key)
        assert urls == {f"{server.url}/{REPO}/pull/{PULL}#issuecomment-{left.id}"}
    assert sum(r.fault is not None for r in server.requests) > 15


# ---------------------------------------------------------------- rate limits


def limited(server: GitHubServer) -> tuple[Client, list[float]]:
    waits: list[float] = []
    patience = Patience(first_wait=0.01, sleep=waits.append)
    return connect("t0ken", server.url, patience=patience), waits


SECONDARY = "You have exceeded a secondary rate limit. Please wait a few minutes."


@pytest.mark.parametrize(
    ("fault", "least"),
    [
        (Fault(status=403, message=SECONDARY, headers={"Retry-After": "7"}), 7),
        (Fault(status=429, message="Too many", headers={"Retry-After": "3"}), 3),
        (Fault(status=429, message="Too many"), 60),
        (Fault(status=403, message=SECONDARY), 60),
    ],
    ids=["403-retry-after", "429-retry-after", "429-bare", "403-bare"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_a_rate_limit_is_waited_for_as_long_as_github_asks(server, fault, least, method):
    if method == "PATCH":
        server.add_comment(REPO, PULL, body("old"), author=ACTIONS)
    where = COMMENTS if method == "POST" else ""
    server.inject(
        Fault(method, where, fault.status, message=fault.message, headers=dict(fault.headers))
    )
    mine, waits = limited(server)
    put(mine, body("x"))
    assert texts(server) == [body("x")]
    (wait,) = waits
    assert least < wait < least + 1


@pytest.mark.parametrize(
    ("retry_after", "least", "most"),
    [
        (timedelta(seconds=100), 60, 101),
        ("soon", 60, 61),
        (f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT", 60, 61),
    ],
    ids=["date", "nonsense", "no date that there is"],
)
def test_retry_after_may_be_a_date_or_nonsense(server, retry_after, least, most):
    if isinstance(retry_after, timedelta):
        retry_after = format_datetime(datetime.now(UTC) + retry_after)
    headers = {"Retry-After": retry_after}
    server.inject(Fault("GET", status=403, message=SECONDARY, headers=headers))
    mine, waits = limited(server)
    put(mine, body("x"))
    (wait,) = waits
    assert least < wait < most


@pytest.mark.parametrize("reset", ["", "soon", "-1", "²"])
def test_a_primary_limit_that_says_no_time_is_waited_for_a_minute(server, reset):
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset}
    server.inject(Fault("GET", status=403, message="API rate limit exceeded", headers=headers))
    mine, waits = limited(server)
    put(mine, body("x"))
    (wait,) = waits
    assert 60 < wait < 61
    # As where an artifact is asked for, by no way of PyGithub's.
    found = meaning(GithubException(403, None, headers), "asking", 1, None)
    assert getattr(found, "wait", None) == 60


def test_a_primary_limit_that_resets_in_an_hour_is_an_error_now(server):
    # A GPU runner that sleeps for an hour costs more than a failed job.
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "99999999999"}
    server.inject(Fault("GET", status=403, message="API rate limit exceeded", headers=headers))
    mine, waits = limited(server)
    with pytest.raises(GitHubFailure, match="rate limit was reached while listing"):
        put(mine, body("x"))
    assert waits == []


@pytest.mark.parametrize(
    ("error", "wait"),
    [
        ({"type": "RATE_LIMITED", "message": "API rate limit exceeded for user ID 1."}, 60),
        ({"type": "RATE_LIMIT", "code": "graphql_rate_limit", "message": "Too many."}, 60),
        ({"message": SECONDARY}, 60),
        ({"message": "Something went wrong while executing your query. It may be a bug."}, 0),
    ],
    ids=["primary", "primary-by-its-other-name", "secondary", "timeout"],
)
def test_graphql_says_with_status_200_that_it_will_later(server, error, wait):
    """The header counts requests that are left all the same (octokit/plugin-throttling.js#632)."""
    headers = {"X-RateLimit-Remaining": "4"}
    server.inject(Fault("POST", "graphql", 200, errors=[error], headers=headers))
    mine, waits = limited(server)
    put(mine, body("x"))
    assert texts(server) == [body("x")]
    (waited,) = waits
    assert wait < waited < wait + 1


def test_what_graphql_refuses_for_good_is_not_asked_again(server):
    wrong = {"type": "UNPROCESSABLE", "message": "Not like that."}
    server.inject(Fault("POST", "graphql", 200, errors=[wrong]))
    mine, waits = limited(server)
    with pytest.raises(GitHubFailure, match=r"Not like that\."):
        put(mine, body("x"))
    assert waits == []


# ---------------------------------------------------------------- GitHub refuses


def test_a_missing_permission_names_the_line_to_add(server):
    server.add_token("reader", read_only=True)
    with pytest.raises(InputError) as caught:
        upsert(server, "x", token="reader")
    assert "Resource not accessible by integration" in caught.value.message
    assert caught.value.fix is not None
    assert "`permissions: pull-requests: write`" in caught.value.fix
    assert "fork" in caught.value.fix
    assert len(server.sent("POST", COMMENTS)) == 1  # a refusal is not repeated


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_organization_that_wants_single_sign_on_is_told_apart(server, method):
    saml = "Resource protected by organization SAML enforcement. You must grant your token access."
    error = {"type": "FORBIDDEN", "message": saml}
    graphql = Fault("POST", "graphql", 200, errors=[error])
    server.inject(graphql if method == "POST" else Fault("GET", status=403, message=saml))
    with pytest.raises(InputError, match="authorized for it") as caught:
        upsert(server, "x")
    assert "Configure SSO" in str(caught.value.fix)


def test_a_bad_token_is_named_and_never_shown(server):
    token = "-".join(("ghs", "secret"))
    mine = client(server, token)
    with pytest.raises(InputError, match="refused the token") as caught:
        put(mine, body("x"))
    assert token not in "".join(traceback.format_exception(caught.value))
    assert token not in repr(mine)
    assert len(server.requests) == 1


def test_a_pull_request_that_does_not_exist(server):
    with pytest.raises(InputError, match=r"octo/adapters#8: Not Found"):
        put(client(server), body("x"), number=8)


def test_a_locked_conversation_and_a_body_too_long_say_what_github_said(server):
    with pytest.raises(GitHubFailure, match="too long"):
        upsert(server, "x" * 65536)
    server.world.pulls[REPO, PULL].locked = True
    with pytest.raises(GitHubFailure, match="issue is locked"):
        upsert(server, "x")
    assert texts(server) == []


@pytest.mark.parametrize("token", ["ghs_a\nb", "two words", "gh\u00e9", "a\x00"])
def test_attack_a_token_that_no_header_can_hold_is_not_quoted(token):
    with pytest.raises(InputError, match="a character that no token has") as caught:
        connect(token, "https://api.github.com")
    assert token not in str(caught.value)


@pytest.mark.parametrize("token", ["", "  \n"])
def test_a_blank_token_is_refused(token):
    with pytest.raises(InputError, match="no GitHub token"):
        connect(token, "https://api.github.com")


@pytest.mark.parametrize("url", ["", "api.github.com", "ftp://x", "http://"])
def test_an_address_that_is_none(url):
    with pytest.raises(InputError, match="is not an API address"):
        connect("t0ken", url)
