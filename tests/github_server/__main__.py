"""Run the server by hand and watch what talks to it."""

from __future__ import annotations

import argparse
import sys
import time

from tests.github_server.server import GitHubServer


def main() -> None:
    """Serve until interrupted; one line per request, and every violation, on standard error."""
    parser = argparse.ArgumentParser(prog="python -m tests.github_server", description=__doc__)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--prefix", default="", help='"/api/v3" for an Enterprise Server')
    parser.add_argument("--token", default="t0ken")
    parser.add_argument("--login", default="github-actions[bot]")
    parser.add_argument("--repository", default="octo/adapters")
    parser.add_argument("--pull", type=int, default=7)
    options = parser.parse_args()
    with GitHubServer(host=options.host, port=options.port, prefix=options.prefix) as server:
        server.add_token(options.token, options.login)
        server.add_pull(options.repository, options.pull)
        print(
            f"export GITHUB_API_URL={server.url} GITHUB_GRAPHQL_URL={server.graphql_url} "
            f"GITHUB_TOKEN={options.token} GITHUB_REPOSITORY={options.repository}\n"
            f"curl -H 'Authorization: Bearer {options.token}' "
            f"{server.url}/repos/{options.repository}/issues/{options.pull}/comments",
            flush=True,
        )
        try:
            _watch(server)
        except KeyboardInterrupt:
            return


def _watch(server: GitHubServer) -> None:
    seen = wrong = 0
    while True:
        for exchange in server.requests[seen:]:
            seen += 1
            print(f"{exchange.status} {exchange.method} {exchange.path}", file=sys.stderr)
        for violation in server.violations[wrong:]:
            wrong += 1
            print(f"VIOLATION {violation}", file=sys.stderr)
        time.sleep(0.1)


if __name__ == "__main__":
    main()
