"""Ten gates at once on one pull request, each about another commit, against a GitHub that fails at
random: one comment is left, it says what the newest gate found, and every check has its end.

`STORM_ROUNDS=200 pytest tests/integration/test_gh_storm.py` runs as many rounds as you like.
"""

from __future__ import annotations

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from adapterbot.commands.audience import Audience
from adapterbot.commands.herald import Herald
from adapterbot.context import Activity, Context
from adapterbot.gh.client import Client, Patience, connect
from adapterbot.marker import Stamp, key_of
from adapterbot.publishing import Publishing
from adapterbot.records import Report, Source
from tests.github_server import Fault, GitHubServer
from tests.golden.reports import REPORTS

ROUNDS = int(os.environ.get("STORM_ROUNDS", "2"))
GATES = 10
REPO = "octo/adapters"
KINDS = ("passed", "regressed", "drift", "inconclusive")
ENDS = {"passed": "success", "regressed": "failure", "drift": "failure", "inconclusive": "neutral"}
SECONDARY = "You have exceeded a secondary rate limit. Please wait a few minutes."
# Longer than any request of this test takes, as a second is on GitHub.
SETTLE = 0.6


def sha(number: int) -> str:
    return f"{number:040x}"


class Weather:
    """A fault for about every eighth request; the seed makes the mixture repeatable, not the order
    in which ten threads meet it."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._lock = threading.Lock()
        self.sent: dict[str, int] = {}

    def __call__(self, method: str, path: str) -> Fault | None:
        with self._lock:
            if self._dice.random() > 0.125:
                return None
            name = self._dice.choice(list(self._faults()))
            self.sent[name] = self.sent.get(name, 0) + 1
            return self._faults()[name]

    @staticmethod
    def _faults() -> dict[str, Fault]:
        now = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()))}
        return {
            "502 before": Fault(status=502),
            "502 after": Fault(status=502, after_write=True),
            "reset before": Fault(reset=True),
            "reset after": Fault(reset=True, after_write=True),
            "cut short": Fault(truncate=True),
            "slow body": Fault(drip=0.002),
            "late": Fault(delay=0.05),
            "read time-out": Fault(delay=1.3, after_write=True),
            "403 primary": Fault(status=403, message="API rate limit exceeded", headers=now),
            "403 secondary": Fault(status=403, message=SECONDARY),
            "429 with Retry-After": Fault(status=429, headers={"Retry-After": "1"}),
            "429 without": Fault(status=429, message="Too many requests"),
        }


def _shortened(seconds: float) -> None:
    time.sleep(seconds if seconds == SETTLE else min(seconds, 0.05))


def gate(server: GitHubServer, number: int, head: str, run: int, kind: str, start: float) -> None:
    """One run: it says that it is at work, how far, and at the end what it found."""
    context = Context(
        activity=Activity.GATE,
        reason="",
        event="pull_request",
        repository=REPO,
        pull_request=number,
        head_sha=head,
        can_comment=True,
        run_id=run,
        run_attempt=1,
    )
    # What GitHub asks for in minutes is cut to what a test can wait.
    patience = Patience(attempts=20, first_wait=0.002, settle=SETTLE, sleep=_shortened)

    def client(*, hurried: bool) -> Client:
        del hurried
        return connect("t0ken", server.url, patience=patience, timeout=1)

    said: list[str] = []
    herald = Herald(Audience(context, Publishing(), client), said.append, between=0.01)
    source = Source(repository=REPO, pull_request=number, head_sha=head)
    report: Report = REPORTS[kind]().model_copy(update={"source": source})
    time.sleep(start)
    if run % 3:  # every third is a job that only publishes
        section = report.adapters[0]
        herald.began([(section.key, section.adapter)], partial=False)
        for step in range(4):
            herald.at(section.key, "answering the suite with both adapters", step / 4)
            time.sleep(0.02)
    herald.ended(report)
    assert said == []


def test_ten_gates_at_once_leave_one_comment_that_says_what_the_newest_found():
    weather = Weather(2611)
    dice = random.Random(7)
    with GitHubServer(chaos=weather) as server:
        server.add_token("t0ken")
        for index in range(1, ROUNDS + 1):
            first = index * GATES
            heads = {first + i: sha(first + i) for i in range(GATES)}
            newest = max(heads)
            server.add_pull(REPO, index, head_sha=heads[newest])
            kinds = {run: dice.choice(KINDS) for run in heads}
            with ThreadPoolExecutor(GATES) as pool:
                jobs = [
                    pool.submit(gate, server, index, head, run, kinds[run], dice.random() * 0.15)
                    for run, head in heads.items()
                ]
                for job in jobs:
                    job.result()
            key = REPORTS["passed"]().adapters[0].key
            (left,) = server.comments(REPO, index)
            assert key_of(left.body) == key, f"round {index}"
            assert Stamp.of(left.body) == Stamp(newest, 1, heads[newest]), f"round {index}"
            assert f"head `{heads[newest][:7]}`" in left.body
            assert "⏳" not in left.body
            checks = [c for c in server.check_runs if c["head_sha"] in heads.values()]
            ended = {
                (c["head_sha"], c["name"]): (c["status"], c["conclusion"], len(c["annotations"]))
                for c in checks
            }
            assert len(ended) == len(checks) == 2 * GATES, f"round {index}"
            for run, head in heads.items():
                assert ended[head, "adapterbot"][:2] == ("completed", ENDS[kinds[run]])
                assert ended[head, f"adapterbot / {key}"][:2] == ("completed", ENDS[kinds[run]])
        assert server.violations == []
        faults = ", ".join(f"{name} {n}" for name, n in sorted(weather.sent.items()))
        print(f"{ROUNDS} rounds, {len(server.requests)} requests, faults: {faults}")
        assert len(weather.sent) == len(Weather._faults()) or ROUNDS < 5
