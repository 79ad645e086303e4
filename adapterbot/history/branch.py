"""Results on a branch of their own, as one file of JSON lines that Git carries.

The branch is read as this clone knows it, and written with plumbing only: the working tree, the
index and whatever else lies on that branch stay as they are. It is pushed from where it was seen;
when somebody was faster, we look again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapterbot.errors import OurFailure
from adapterbot.git.commits import commit_of
from adapterbot.git.program import git, git_as
from adapterbot.history.results import from_lines, merged, to_lines
from adapterbot.records.history import PastResult

FILE = "history.jsonl"
REMOTE = "origin"
# Where a fetched state is kept: no branch of the user's.
_SEEN = "refs/adapterbot/history"
# The legs of a matrix end together: each looks again a little later than the last time.
_ATTEMPTS = 24
_LONGEST_WAIT = 4.0
# A verdict waits for its history, but not for a network that says nothing.
_SECONDS = 120.0


@dataclass(frozen=True)
class Branch:
    """The branch `name` of `origin`, through the clone at `repository`."""

    repository: Path
    name: str

    def read(self) -> tuple[PastResult, ...]:
        """Every result, oldest first; none where this clone knows no such branch.

        Raises:
            InputError: a line of the file is none of ours.
            OurFailure: this clone has no content of the file.
        """
        ref = self._known()
        return self._at(ref) if ref else ()

    def is_known(self) -> bool:
        """Whether this clone has the branch; one that fetched another alone has not."""
        return self._known() is not None

    def _known(self) -> str | None:
        refs = (f"refs/remotes/{REMOTE}/{self.name}", f"refs/heads/{self.name}")
        return next((ref for ref in refs if commit_of(self.repository, ref)), None)

    def append(
        self, results: Sequence[PastResult], environment: Mapping[str, str], message: str
    ) -> None:
        """Commit these and push; of a commit that is known its result is replaced.

        Args:
            environment: of every git process: who commits, and how to push.

        Raises:
            OurFailure: the push was refused, and not because somebody was faster.
        """
        for attempt in range(_ATTEMPTS):
            parent = self._fetch(environment)
            known = self._at(parent) if parent else ()
            content = merged(known, results)
            if content == known:
                return
            commit = self._write(parent, to_lines(content), environment, message)
            if self._push(parent, commit, environment):
                return
            longest = min(_LONGEST_WAIT, 0.1 * 2**attempt)
            time.sleep(random.uniform(0, longest))  # noqa: S311
        raise OurFailure(
            f"the branch {self.name} moved {_ATTEMPTS} times while results were written to it",
            fix="re-run the job",
        )

    def _at(self, commit: str) -> tuple[PastResult, ...]:
        if not git(self.repository, "ls-tree", commit, "--", FILE):
            return ()
        # That it cannot be read is not that there is none: what is appended would take its place.
        text = git(self.repository, "cat-file", "blob", f"{commit}:{FILE}")
        return from_lines(text.decode(errors="replace"), f"{self.name}:{FILE}")

    def _fetch(self, environment: Mapping[str, str]) -> str | None:
        """The commit that the branch is at now; None when there is none yet."""
        ref = f"refs/heads/{self.name}"
        listed = self._run(environment, "ls-remote", REMOTE, ref)
        if not listed.strip():
            return None
        self._run(environment, "fetch", "-q", "--no-tags", REMOTE, f"+{ref}:{_SEEN}")
        return commit_of(self.repository, _SEEN)

    def _write(
        self, parent: str | None, text: str, environment: Mapping[str, str], message: str
    ) -> str:
        blob = self._run(environment, "hash-object", "-w", "--stdin", given=text).strip()
        entries = self._run(environment, "ls-tree", "-z", parent).split("\0") if parent else []
        others = [line for line in entries if line and line.partition("\t")[2] != FILE]
        entries = [*others, f"100644 blob {blob}\t{FILE}"]
        tree = self._run(environment, "mktree", "-z", given="".join(f"{e}\0" for e in entries))
        parents = ("-p", parent) if parent else ()
        return self._run(environment, "commit-tree", tree.strip(), *parents, "-m", message).strip()

    def _push(self, parent: str | None, commit: str, environment: Mapping[str, str]) -> bool:
        """Whether the branch was still where we saw it, and now is at `commit`."""
        ref = f"refs/heads/{self.name}"
        lease = f"--force-with-lease={ref}:{parent or ''}"
        try:
            self._run(environment, "push", "-q", lease, REMOTE, f"{commit}:{ref}")
        except OurFailure:
            if self._fetch(environment) == parent:
                raise  # nobody moved it: the push itself was refused
            return False
        return True

    def _run(self, environment: Mapping[str, str], *arguments: str, given: str = "") -> str:
        try:
            said = git_as(
                self.repository,
                environment,
                *arguments,
                given=given.encode(errors="surrogateescape"),
                seconds=_SECONDS,
            )
        except OurFailure as error:
            raise OurFailure(
                error.message,
                file=f"branch {self.name}",
                fix="give the job `contents: write`, let no ruleset stand in the way, and check "
                "the network",
            ) from error
        # Names of other files on the branch may be any bytes, and go back as they came.
        return said.decode(errors="surrogateescape")
