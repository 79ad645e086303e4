"""A GitHub on localhost that remembers, fails on demand, and is judged by GitHub's description.

    with GitHubServer() as server:
        server.add_token("t0ken")                     # speaks for github-actions[bot]
        server.add_pull("octo/adapters", 7)
        client = connect("t0ken", server.url)
        ...
        assert server.violations == []

By hand: `python -m tests.github_server --port 8080`.
"""

from tests.github_server.records import Comment, Pull
from tests.github_server.server import Exchange, Fault, GitHubServer

__all__ = ["Comment", "Exchange", "Fault", "GitHubServer", "Pull"]
