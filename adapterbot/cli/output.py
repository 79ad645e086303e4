"""What a command leaves behind: its result on standard output, words on standard error, a code.

Standard output carries the result only; everything that is said on the way goes to standard error.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from adapterbot.errors import AdapterbotError, EndedEarly, ExitCode, OurFailure

if TYPE_CHECKING:
    from adapterbot.commands.report_files import Written
    from adapterbot.records import Report

_DETAILS = re.compile(
    r"^<details><summary>(.*?)</summary>$.*?^</details>$", re.MULTILINE | re.DOTALL
)
_PLAIN = {"−": "-", "Δ": "d", "‖": "|", "•": "*", "·": ".", "▸": ">", "→": "->", "…": "..."}
_PLAIN |= dict(zip("▁▂▃▄▅▆▇█", "12345678", strict=True))  # a trend, in which nothing is lost
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


def document(text: str) -> None:
    """A JSON document as the result; what models and strangers wrote in it commands no runner."""
    from adapterbot.gh.workflow import harmless_json

    text = harmless_json(text)
    if (sys.stdout.encoding or "").lower() not in ("utf-8", "utf8"):  # JSON is, or it is ASCII
        text = _NOT_ASCII.sub(lambda letters: json.dumps(letters[0])[1:-1], text)
    typer.echo(text)


def replace_what_stdout_cannot_encode() -> None:
    """Letters that the encoding of standard output lacks become ASCII that says the same, or "?": a
    log in ISO 8859-1 or in a Windows code page is no reason to lose the rest."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error("adapterbot", _plain)
        sys.stdout.reconfigure(errors="adapterbot")


class _Lossy(io.FileIO):
    """A file that drops what a full disk, or a pipe that nobody reads, does not take."""

    def write(self, content: Any, /) -> int:
        try:
            return super().write(content)
        except OSError:
            return len(content)


def drop_what_stderr_cannot_take() -> None:
    """A log that is full does not end the work that it is about."""
    told = sys.stderr
    if isinstance(told, io.TextIOWrapper):
        words = io.BufferedWriter(_Lossy(told.fileno(), "wb", closefd=False))
        sys.stderr = io.TextIOWrapper(words, told.encoding, told.errors, line_buffering=True)


def ignore_a_width_of_zero() -> None:
    """A terminal without a window may claim zero columns, into which nothing would be printed."""
    if not os.environ.get("COLUMNS", "").strip("0"):
        os.environ.pop("COLUMNS", None)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    plain = (_PLAIN.get(letter, " " if letter.isspace() else "?") for letter in lost)
    return "".join(plain), error.end


def line(text: str) -> None:
    """A line of a result. Names in it may be a stranger's: they stay on it, and command nobody."""
    from adapterbot.gh.workflow import harmless

    typer.echo(harmless(text))


def lines(text: str) -> None:
    """Several of them."""
    from adapterbot.console import harmless_lines

    typer.echo(harmless_lines(text), nl=False)


def wrote(path: Path, *, as_json: bool) -> None:
    """Where a command has put its result."""
    if as_json:
        document(json.dumps({"path": str(path)}))
    else:
        line(str(path))


def say(text: str, *, level: str = "info") -> None:
    """Lines for the person who waits, or for whoever collects logs; as harmless as `line`."""
    from adapterbot.gh.workflow import harmless

    text = "\n".join(map(harmless, text.split("\n")))
    if os.environ.get("ADAPTERBOT_LOG_FORMAT") == "json":
        from adapterbot.console import json_line

        text = json_line("message", {"message": text}, level=level)
    typer.echo(text, err=True)


def leave(code: ExitCode) -> NoReturn:
    """End the command."""
    raise typer.Exit(int(code))


def show(written: Written, as_json: bool) -> None:
    """The result on standard output: the report, or the comments as a reader would see them."""
    if as_json:
        document(written.report_path.read_text(encoding="utf-8").rstrip("\n"))
        return
    # In a job's log the comment is one click away; model text has no business there.
    if os.environ.get("GITHUB_ACTIONS") != "true":
        from rich.console import Console

        from adapterbot.cli.terminal import Comment

        console = Console()
        for path in written.comment_paths:
            console.print(Comment(_folded(path.read_text(encoding="utf-8"))))
    else:
        _say_verdicts(written.report)
    say(f"comment  {', '.join(str(path) for path in written.comment_paths) or 'none'}")
    say(f"report   {written.report_path}")
    say(f"page     {written.page_path}")


def _say_verdicts(report: Report) -> None:
    """What a red job is red for, a line for each reason, and where it broke."""
    for adapter in report.adapters:
        outcome = adapter.verdict.outcome.value.replace("_", " ")
        for reason in adapter.verdict.reasons if adapter.problem is None else ():
            say(f"{outcome}: {adapter.adapter}: {reason}")
        found = adapter.bisect
        if found and found.first_broken:
            within = f" of {len(found.candidates)} possible" if len(found.candidates) > 1 else ""
            likely = "" if found.probability is None else f", probability {found.probability:.3f}"
            say(f"{found.verdict.value}: {adapter.adapter}: {found.first_broken}{within}{likely}")


def _folded(comment: str) -> str:
    """A comment with its details closed, as it meets its reader; the page has them open."""
    return _DETAILS.sub(r"▸ \1", comment)


def refused(error: AdapterbotError) -> None:
    """An error as the JSON document that was asked for."""
    from adapterbot.unjudged import problem_of

    document(json.dumps({"error": problem_of(error).model_dump()}, indent=2))


def interrupted(*, as_json: bool) -> None:
    """The end of a command that was asked to end, and has no result."""
    say("interrupted")
    if as_json:
        refused(EndedEarly("interrupted"))


def tell(error: AdapterbotError, *, as_json: bool) -> None:
    """An error as a person, a script and a runner read it."""
    from adapterbot.commands.notes import problem_note
    from adapterbot.gh import workflow
    from adapterbot.unjudged import problem_of

    say(f"error: {error}", level="error")
    if as_json:
        refused(error)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        typer.echo(workflow.annotation(problem_note(problem_of(error), "adapterbot")), err=True)
    # What we refuse without a comment, since nothing of it is trusted, is said here at least.
    if os.environ.get("GITHUB_STEP_SUMMARY"):
        from adapterbot.pages import inert

        said = f"### 🚫 adapterbot stopped\n\n{inert.text(str(error))}\n"
        with suppress(OurFailure):  # which may be what is told here
            workflow.append_summary(Path(os.environ["GITHUB_STEP_SUMMARY"]), said)
