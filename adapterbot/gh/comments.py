"""One comment per adapter on a pull request, however many jobs race and however GitHub fails.

A comment is ours when its first line is our marker *and* the token's own account wrote it: anyone
may paste the marker. All pages are read. Every write is followed by another look, until the list
says what we meant: the lowest id stays, takes the content, and the others go, so racing jobs
converge on one comment.

GitHub has no compare-and-swap for comments. What keeps an older commit's gate from writing over a
newer one's word is the stamp on the second line, and of two stamps the pull request's own head
has the last say: a stamp that somebody forged cannot silence the gate of the commit that is there.

The race ends. Where stamps say nothing of who is newer, the last write stands and nobody writes
twice. Where they do, only a gate that looked before the newer one's word was there writes over it,
and gives way when it looks again. So the newer one says it again and waits before it looks, each
time twice as long: a write that comes later still was under way for longer than that.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

from github.Issue import Issue
from github.IssueComment import IssueComment
from github.NamedUser import NamedUser
from github.Organization import Organization

from adapterbot.errors import AdapterbotError, GitHubFailure, OurFailure
from adapterbot.gh.answers import Setback
from adapterbot.gh.client import Client
from adapterbot.gh.folding import PERMISSION, fold, unless_gone
from adapterbot.gh.heads import head_of
from adapterbot.marker import DEFAULT_NAME, UNSTAMPED, Stamp, is_document_key, key_of
from adapterbot.publishing import CommentMode


class CommentAction(StrEnum):
    """What became of the comment."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    OUTDATED = "outdated"  # a newer commit's gate has the word, so nothing was written


@dataclass(frozen=True)
class CommentOutcome:
    """Where the comment is and what was done to it.

    Attributes:
        left: why an earlier run's comment stands as it did, where it should not.
    """

    url: str
    action: CommentAction
    left: str = ""


@dataclass(frozen=True)
class Thread:
    """Our comments on one pull request.

    Attributes:
        repository: "owner/name".
        name: of the gate; comments under another name are another workflow's.
        mode: what becomes of an earlier run's comment; `off` is the caller's business.
    """

    client: Client
    repository: str
    number: int
    name: str = DEFAULT_NAME
    mode: CommentMode = CommentMode.UPDATE

    def keys(self) -> frozenset[str]:
        """The keys of every comment of ours on an adapter; the pull request's document is none.

        Raises:
            InputError, GitHubFailure: as `put`.
        """
        keys = (key_of(comment.body or "", self.name) for comment in self._written_by_us())
        return frozenset(key for key in keys if key is not None and not is_document_key(key))

    def put(
        self,
        key: str,
        body: str,
        stamp: Stamp = UNSTAMPED,
        *,
        create: bool = True,
        final: bool = True,
    ) -> CommentOutcome | None:
        """Make the one comment for `key` say `body`.

        Args:
            body: Markdown whose first line is `marker(key, name)`.
            stamp: which run says it; it becomes the second line.
            create: whether to post one where there is none. None is returned where nothing is.
            final: False for a word on the way, after which nobody looks again.

        Raises:
            InputError: the token, its permissions, the repository or the number is wrong.
            GitHubFailure: GitHub refused or did not answer.
        """
        if key_of(body, self.name) != key:
            raise OurFailure(f"the comment for {key!r} does not begin with its marker")
        return _Put(self, key, stamp.on(body), stamp, create=create, final=final).run()

    @property
    def label(self) -> str:
        """Such as "octo/adapters#7"."""
        return f"{self.repository}#{self.number}"

    def issue(self) -> Issue:
        """What the comments API calls a pull request. Lazy: no request is sent for it."""
        return self.client.api.get_repo(self.repository).get_issue(self.number)

    def ours(self, key: str) -> dict[int, IssueComment]:
        """Our comments for one key, by id."""
        return {
            comment.id: comment
            for comment in self._written_by_us()
            if key_of(comment.body or "", self.name) == key
        }

    def _written_by_us(self) -> list[IssueComment]:
        """The token's own comments, from all pages; the list starts over when a page fails."""
        login = self.client.login
        found = self.client.repeat(
            f"listing the comments of {self.label}",
            lambda: list(self.issue().get_comments()),
            permission=PERMISSION,
        )
        return [comment for comment in found if wrote(login, comment)]


@dataclass
class _Put:
    """One comment on its way: look, take one step, look again."""

    thread: Thread
    key: str
    body: str
    stamp: Stamp
    create: bool
    final: bool
    written: dict[int, IssueComment] = field(default_factory=dict)
    said_in: set[int] = field(default_factory=set)
    edits: int = 0
    found: bool = False
    edited: bool = False
    doubtful: bool = False  # the last write may have happened
    replaced: bool = False
    failed: int = 0
    lost: Setback | None = None  # the last attempt's, whose write may be there all the same
    left: str = ""
    _head: str | None = None

    def run(self) -> CommentOutcome | None:
        settled = False
        while True:
            # A list may lag behind the write that precedes it, so ours is added to what it says.
            ours = self.written | self.thread.ours(self.key)
            newer = self._newer(ours)
            if newer is not None:
                self._withdraw(ours)
                return CommentOutcome(newer.html_url, CommentAction.OUTDATED)
            keeper = self._keeper(ours)
            if keeper is None and not self.create and not ours:
                return None
            if not self._says_it(keeper):
                if self.lost:
                    raise self.lost
                # Content before tidying: whatever fails next, one comment tells the truth.
                self._step(self._post if keeper is None else partial(self._edit, keeper))
                if self.final or not self.edited:
                    continue
            for spare in ours.values():
                if keeper is not None and spare.id != keeper.id:
                    self._retire(spare)
            if self.final and self.replaced and not settled and self.stamp.run:
                # Of two gates that looked at the same moment the older may write last.
                self.thread.client.patience.sleep(self.thread.client.patience.settle)
                settled = True
                continue
            if keeper is not None:
                return CommentOutcome(keeper.html_url, self._action(keeper), self.left)

    def _newer(self, ours: dict[int, IssueComment]) -> IssueComment | None:
        """A comment of a later run about another commit, unless that commit is not the head."""
        for comment in ours.values():
            if self.stamp.before(Stamp.of(comment.body or "")):
                if self._head is None:
                    thread = self.thread
                    self._head = head_of(thread.client, thread.repository, thread.number).sha
                return None if self._head == self.stamp.head else comment
        return None

    def _keeper(self, ours: dict[int, IssueComment]) -> IssueComment | None:
        """The comment to write into; None to post one."""
        candidates = ours
        if self.thread.mode is not CommentMode.UPDATE:
            candidates = {
                i: comment
                for i, comment in ours.items()
                if i in self.written or Stamp.of(comment.body or "").same_run(self.stamp)
            }
        return candidates[min(candidates)] if candidates else None

    def _says_it(self, keeper: IssueComment | None) -> bool:
        return keeper is not None and (_same(keeper.body, self.body) or self._outspoken(keeper))

    def _outspoken(self, keeper: IssueComment) -> bool:
        """Whether we have said it there, and somebody with a stamp level with ours wrote later."""
        return keeper.id in self.said_in and self.stamp.level(Stamp.of(keeper.body or ""))

    def _step(self, step: Callable[[], None]) -> None:
        """One write. After a setback we look again before anything is repeated, or given up.

        Raises:
            GitHubFailure: what we wrote was undone as often as we try anything.
        """
        patience = self.thread.client.patience
        if self.edits >= patience.attempts:
            raise GitHubFailure(
                f"what we wrote on {self.thread.label} was undone {self.edits} times",
                fix="look for another workflow that edits or deletes comments",
            )
        try:
            step()
        except Setback as setback:
            self.failed += 1
            self.doubtful = not setback.nothing_done
            if not patience.again(setback, self.failed):
                if not self.doubtful:
                    raise
                self.lost = setback
            return
        self.edits += 1
        # The first may be a comment of our own, and the second an edit of one that came before it.
        if self.edits > 2:
            patience.sleep(patience.backoff(self.edits - 2))

    def _post(self) -> None:
        created = self.thread.client.once(
            f"posting a comment on {self.thread.label}",
            lambda: self.thread.issue().create_comment(self.body),
            permission=PERMISSION,
            attempt=self.failed + 1,
        )
        self.written[created.id] = created
        self.said_in.add(created.id)
        self.doubtful = False

    def _edit(self, comment: IssueComment) -> None:
        self.found = True
        before = Stamp.of(comment.body or "")
        done = self._unless_gone(
            f"updating our comment on {self.thread.label}",
            lambda: comment.edit(self.body),
            once=True,
        )
        if done:
            self.edited = True
            self.said_in.add(comment.id)
            self.replaced = self.replaced or not before.same_run(self.stamp)
        self.written.pop(comment.id, None)

    def _withdraw(self, ours: dict[int, IssueComment]) -> None:
        """Take back what we posted beside a newer comment; the lowest id is others' to keep."""
        for comment in list(self.written.values()):
            if comment.id != min(ours):
                self._delete(comment)

    def _retire(self, comment: IssueComment) -> None:
        thread = self.thread
        earlier = not Stamp.of(comment.body or "").same_run(self.stamp)
        if thread.mode is CommentMode.UPDATE or not earlier:
            self._delete(comment)
        elif not self.left:  # what is refused once is refused for the others, too
            try:
                if thread.mode is CommentMode.MINIMIZE:
                    fold(thread.client, thread.label, comment)
                else:
                    self._delete(comment)
            except AdapterbotError as error:
                # The newer word is there. That the older one is, too, must not cost the verdict.
                self.left = str(error)

    def _delete(self, comment: IssueComment) -> None:
        """Gone is gone, whoever did it: a repeated DELETE and a racing job both meet a 404."""
        self._unless_gone(f"deleting our second comment on {self.thread.label}", comment.delete)
        self.written.pop(comment.id, None)

    def _unless_gone(self, doing: str, call: Callable[[], None], *, once: bool = False) -> bool:
        """False when the comment is gone."""
        ask = self.thread.client.once if once else self.thread.client.repeat
        return ask(doing, unless_gone(call), permission=PERMISSION)

    def _action(self, keeper: IssueComment) -> CommentAction:
        if self.edited or (self.found and self.doubtful):
            return CommentAction.UPDATED
        fresh = keeper.id in self.written or self.doubtful
        return CommentAction.CREATED if fresh else CommentAction.UNCHANGED


def wrote(login: str, comment: IssueComment) -> bool:
    """Whether the token's account wrote this comment.

    The second form is for an App's token without the usual prefix: no person's login can end in
    "[bot]", so it lets nobody in.
    """
    # PyGithub's types do not say so, but the comment of a deleted account has no user.
    author: NamedUser | Organization | None = comment.user
    return author is not None and author.login in {login, f"{login}[bot]"}


def _same(left: str | None, right: str) -> bool:
    """Equal but for line endings and the blank end, which GitHub may rewrite."""

    def plain(text: str) -> str:
        return re.sub(r"\r\n?", "\n", text).rstrip()

    return plain(left or "") == plain(right)
