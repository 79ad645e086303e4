"""`adapterbot serve`: 64 clients of 64 tenants, 10,000 requests, each answered as its tenant alone.

Each tenant's canary is what it answers alone. The server is a process of its own; so are its users:
it is killed in the end and started again, and every tenant must answer as before.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import tempfile
import threading
import time
from pathlib import Path

from bench.figures import Figure
from tests.bank_server import killed_afterwards
from tests.bank_worlds import vera_bank
from tests.tiny_models import save_base

TENANTS = 64
REQUESTS = int(os.environ.get("ADAPTERBOT_BENCH_REQUESTS", "10000"))
TOKENS = 24
PROMPT = "the thing in"


def ask(connection: http.client.HTTPConnection, tenant: int) -> str:
    """One request as a tenant, greedy."""
    body = {
        "model": f"tiny:u{tenant}",
        "prompt": PROMPT,
        "max_tokens": TOKENS,
        "temperature": 0,
    }
    headers = {"Authorization": f"Bearer key-{tenant}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    content = json.loads(answer.read())
    if answer.status != 200:
        raise SystemExit(f"{answer.status}: {content}")
    return str(content["choices"][0]["text"])


def canaries(port: int) -> list[str]:
    """What each tenant answers when nobody else asks."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    return [ask(connection, tenant) for tenant in range(TENANTS)]


def storm(port: int, wanted: list[str]) -> tuple[int, list[float], float]:
    """All clients at once: how many answers were not the tenant's own, and how long each took."""
    wrong, seconds, lock = [0], [], threading.Lock()

    def client(tenant: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        took, bad = [], 0
        for _ in range(-(-REQUESTS // TENANTS)):
            started = time.perf_counter()
            bad += ask(connection, tenant) != wanted[tenant]
            took.append(time.perf_counter() - started)
        with lock:
            wrong[0] += bad
            seconds.extend(took)

    threads = [threading.Thread(target=client, args=(tenant,)) for tenant in range(TENANTS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong[0], sorted(seconds), time.perf_counter() - started


def measure() -> list[Figure]:
    """Cross-talk, latency, and what a kill loses."""
    with tempfile.TemporaryDirectory() as folder:
        base = save_base("llama", Path(folder) / "tiny")
        with vera_bank(base, Path(folder) / "users", TENANTS, scale=0.5) as bank:
            for tenant in range(TENANTS):
                bank.add_key(f"u{tenant}", hashlib.sha256(f"key-{tenant}".encode()).digest())
        with killed_afterwards(base, Path(folder) / "users") as (port, _):
            wanted = canaries(port)
            wrong, seconds, wall = storm(port, wanted)
        with killed_afterwards(base, Path(folder) / "users") as (port, _):
            lost = sum(one != other for one, other in zip(wanted, canaries(port), strict=True))
    if len(set(wanted)) < TENANTS:
        raise SystemExit("two tenants have the same canary, so cross-talk could hide")
    p50, p99 = (seconds[int(len(seconds) * share)] for share in (0.5, 0.99))
    setting = f"{TENANTS} clients of {TENANTS} tenants, each with a canary of its own, tiny Llama"
    return [
        Figure(
            "serve: answers that were not the tenant's own",
            f"{setting}; {len(seconds):,} requests in {wall:.0f} s, p50 {p50 * 1e3:.0f} ms,"
            f" p99 {p99 * 1e3:.0f} ms",
            f"{wrong}",
            "target 0",
            float(wrong),
        ),
        Figure(
            "serve: tenants who answer otherwise after kill −9 and a restart",
            setting,
            f"{lost}",
            "target 0",
            float(lost),
        ),
    ]
