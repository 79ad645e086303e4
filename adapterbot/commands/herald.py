"""What a gate posts to a pull request while it works, and when it ends: comments and checks.

Progress is posted from a thread beside the gate, at most once in thirty seconds, and nothing that
goes wrong there costs the gate anything. The result is posted from the gate's own thread, once
nothing can overtake it, and what goes wrong then is an error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from adapterbot import render
from adapterbot.commands.audience import Audience
from adapterbot.commands.pledge import Pledge
from adapterbot.errors import AdapterbotError, InputError
from adapterbot.gh.workflow import harmless
from adapterbot.pages import figures
from adapterbot.publishing import CommentWhen
from adapterbot.records import AdapterReport, Outcome, Report, Standing
from adapterbot.unjudged import AFTER_KEY, UNKNOWN_KEY, with_older

SECONDS_BETWEEN_EDITS = 30.0
# The runner kills what is left ten seconds after it asked to end.
_HURRIED_SECONDS = 4
# What the second hidden line takes.
_STAMP_ROOM = 150
_BAD = {Outcome.REGRESSED, Outcome.DRIFT, Outcome.NOT_JUDGED}
_QUIET = {Standing.OK, Standing.INFORMATIVE}


@dataclass(frozen=True)
class Told:
    """What was posted. `annotated` says that the findings stand on their lines already."""

    comments: Mapping[str, str] = field(default_factory=dict)
    annotated: bool = False


@dataclass
class _Course:
    """How far one adapter is, and whether its check was opened as more than queued."""

    path: str
    fraction: float | None = None
    detail: str = "waiting for its turn"
    told: str = ""
    begun: bool = False


@dataclass
class Herald:
    """Speaks for one run.

    Attributes:
        say: takes a line for the log, for what goes wrong on the way.
        pledge: a file that exists while something is said that has to be followed by an end.
        grace: seconds to keep quiet at first, unless `free` ends them. PyGithub takes a quarter of
            a second to import, for which whatever the gate itself imports would have to wait.
    """

    audience: Audience
    say: Callable[[str], None]
    pledge: Path | None = None
    grace: float = 0.0
    between: float = SECONDS_BETWEEN_EDITS
    clock: Callable[[], float] = time.monotonic
    _courses: dict[str, _Course] = field(default_factory=dict)
    _partial: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _dirty: bool = False
    _quiet_until: float = 0.0
    _ended: bool = False
    _thread: threading.Thread | None = None

    # ------------------------------------------------------------ on the way

    def began(self, adapters: Sequence[tuple[str, str]], *, partial: bool) -> None:
        """The gate is at work on these (key, path), before the long work: a job that is killed
        must not leave the last verdict standing."""
        self._courses = {key: _Course(path) for key, path in adapters}
        self._partial = partial
        if self.pledge:
            Pledge(adapters=tuple(adapters), partial=partial).write(self.pledge)
        self._thread = threading.Thread(target=self._speak, name="herald", daemon=True)
        self._dirty = True
        self._quiet_until = self.clock() + self.grace
        self._thread.start()

    def free(self) -> None:
        """The processor has nothing more urgent to do than to say what there is to say."""
        with self._changed:
            self._quiet_until = self.clock()
            self._changed.notify()

    def at(self, key: str, detail: str, fraction: float | None = None) -> None:
        """How far an adapter is. Cheap, and never waits."""
        with self._changed:
            course = self._courses.get(key)
            if course is not None:
                course.detail, course.fraction, course.begun = detail, fraction, True
                self._dirty = True
                self._changed.notify()

    def _speak(self) -> None:
        due = self.clock()
        while True:
            with self._changed:
                while not self._ended:
                    left = max(due, self._quiet_until) - self.clock()
                    if self._dirty and left <= 0:
                        break
                    self._changed.wait(left if self._dirty else None)
                if self._ended:
                    return
                self._dirty = False
                due = self.clock() + self.between
                courses = {key: replace(course) for key, course in self._courses.items()}
            try:
                self._tell_courses(courses)
            except AdapterbotError as error:
                # No reason to waste the evaluation; posting the result will say why.
                self.say(f"could not say how far we are: {harmless(str(error))}")
                if isinstance(error, InputError):
                    return  # it would fail the same way every time

    def _tell_courses(self, courses: Mapping[str, _Course]) -> None:
        checks, thread = self.audience.checks(), self.audience.comments()
        if checks and not self._partial:
            begun = any(course.begun for course in courses.values())
            checks.open(self.audience.publishing.name, "Evaluating", queued=not begun)
        for key, course in courses.items():
            body = render.progress(
                key,
                course.path,
                course.fraction,
                detail=course.detail,
                head_sha=self.audience.context.head_sha,
                links=self.audience.links,
                name=self.audience.publishing.name,
            )
            if self._ended or body == self._courses[key].told:
                continue
            if thread:
                first = self.audience.publishing.when is CommentWhen.ALWAYS
                thread.put(key, body, self.audience.stamp, create=first, final=False)
            if checks:
                share = "" if course.fraction is None else f", {figures.share(course.fraction)}"
                title = f"Evaluating{share}" if course.begun else "Waiting"
                checks.open(self.audience.check_name(key), title, queued=not course.begun)
            self._courses[key].told = body

    # ------------------------------------------------------------ at the end

    def ended(self, report: Report, *, hurried: bool = False) -> Told:
        """Every comment and check says how it came out.

        A report that is not partial speaks for every adapter of the pull request, so our older
        comments on adapters that it does not mention are brought up to date too. A leg of a
        matrix, which gates one adapter by name, leaves those of the other legs alone.

        Args:
            hurried: the job is being ended: little patience, and checks end as cancelled.

        Raises:
            AdapterbotError: the token, its permissions, or GitHub.
        """
        with self._changed:
            self._ended = True
            self._changed.notify()
        if self._thread:
            # A late "at work" must not overwrite the result.
            self._thread.join(_HURRIED_SECONDS if hurried else None)
        self.audience.reconnect(hurried=hurried)
        failed: AdapterbotError | None = None
        comments: dict[str, str] = {}
        try:
            comments = self._end_comments(report)
        except AdapterbotError as error:
            from adapterbot.gh.answers import Setback

            failed = error
            if isinstance(error, Setback):
                # GitHub was silent for as long as we have patience for.
                self.audience.reconnect(hurried=True)
        # Whatever became of the comment, no check is left in progress.
        annotated = self._end_checks(report, cancelled=hurried)
        if failed:
            raise failed
        if self.pledge:
            with suppress(OSError):  # of a disk that takes nothing
                self.pledge.unlink(missing_ok=True)
        return Told(comments, annotated)

    def _end_comments(self, report: Report) -> dict[str, str]:
        thread = self.audience.comments()
        if thread is None:
            return {}
        sections = list(report.adapters)
        if not report.partial:
            sections = with_older(sections, thread.keys())
        urls: dict[str, str] = {}

        def tell(section: AdapterReport) -> None:
            body = render.comment(
                report,
                section,
                links=self.audience.links,
                limit=render.COMMENT_LIMIT - _STAMP_ROOM,
                name=self.audience.publishing.name,
            )
            wanted = _worth_a_comment(section, self.audience.publishing.when)
            if outcome := thread.put(section.key, body, self.audience.stamp, create=wanted):
                urls[section.key] = outcome.url
                if outcome.left:
                    self.say(f"an earlier comment stays as it is: {harmless(outcome.left)}")

        _all(partial(tell, section) for section in sections)
        return urls

    def _end_checks(self, report: Report, *, cancelled: bool) -> bool:
        from adapterbot.commands.check_results import of_adapter, of_report

        checks = self.audience.checks()
        if checks is None:
            return False
        ends = {
            self.audience.check_name(a.key): of_adapter(
                report, a, self.audience.links, cancelled=cancelled
            )
            for a in report.adapters
            if a.key not in (UNKNOWN_KEY, AFTER_KEY)
        }
        if not report.partial:
            ends[self.audience.publishing.name] = of_report(
                report, self.audience.links, cancelled=cancelled
            )
        _all(partial(checks.close, name, end) for name, end in ends.items())
        for refusal in checks.refusals:
            self.say(f"no check: {harmless(refusal)}")
        return checks.annotate


def _worth_a_comment(adapter: AdapterReport, when: CommentWhen) -> bool:
    """Whether a section is worth telling a pull request that has no comment of ours yet.

    `regressions`: something fails, drifted or could not be judged. `changes`: that, or a metric
    that is not simply ok, or an answer that differs.
    """
    bad = adapter.problem is not None or adapter.verdict.fails or adapter.verdict.outcome in _BAD
    if when is CommentWhen.REGRESSIONS:
        return bad
    if when is CommentWhen.CHANGES:
        moved = any(metric.standing not in _QUIET for metric in adapter.metrics)
        return bad or moved or adapter.samples_changed > 0
    return True


def _all(steps: Iterable[Callable[[], None]]) -> None:
    """Every step, even if GitHub refuses one, so that nothing out of date is left elsewhere. When
    GitHub does not answer at all, the rest are not tried.

    Raises:
        AdapterbotError: the first refusal.
    """
    from adapterbot.gh.answers import Setback

    refused: AdapterbotError | None = None
    for step in steps:
        try:
            step()
        except Setback:
            raise
        except AdapterbotError as error:
            refused = refused or error
    if refused:
        raise refused
