"""Templates: programs that come with a base model or a stranger's suite, run where they can do no
harm.

A template is Jinja, sandboxed against reaching out; but it may loop for hours or fill the memory.
So templates are rendered in a child process with a time and a memory limit. The child is a fork: it
has the tokenizer already, and touches neither torch nor a lock of ours. What another thread held at
that moment, of an import or of Jinja's own, is held in the child for ever: one that waits and does
nothing is replaced by another. Without /proc, as on macOS, which lets no process be bounded in
memory, the time limit alone stands and no child is replaced.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import TypeVar

from adapterbot.errors import InputError, first_line
from adapterbot.eval.answers import Message

_SECONDS = 20.0
_SECONDS_PER_CHAT = 0.02
_MEMORY = 1024 * 1024 * 1024
# A child that took less than `_IDLE` seconds of processor time in `_PATIENCE` is replaced so often.
_PATIENCE, _IDLE, _REPLACED = 3.0, 0.05, 2
_TEXT_LIMIT = 64 * 1024 * 1024
_PROC = Path("/proc")

T = TypeVar("T")
Chat = tuple[Message, ...]


def render_chats(template: Callable[[Chat], str], chats: Sequence[Chat], *, file: str) -> list[str]:
    """Every chat as the template writes it.

    Args:
        template: renders one chat; what it raises says what is wrong with the template.
        file: whose template it is, for errors.

    Raises:
        InputError: the template fails, takes too long, or wants too much memory.
    """
    if not chats:
        return []
    texts, problem = render_apart(template, chats, _SECONDS + _SECONDS_PER_CHAT * len(chats))
    if problem:
        raise InputError(
            problem,
            file=file,
            field="chat_template",
            fix="correct the template, or write `prompt` instead of `messages`",
        )
    return texts


def render_apart(
    template: Callable[[T], str], items: Sequence[T], seconds: float
) -> tuple[list[str], str]:
    """Every item as the template writes it; or, of a template that fails, takes longer than
    `seconds` or wants too much memory, what is wrong with it."""
    for _ in range(_REPLACED):
        with suppress(_Idle):
            return _parsed(_answer(template, items, seconds, replaceable=True), seconds)
    return _parsed(_answer(template, items, seconds, replaceable=False), seconds)


class _Idle(Exception):
    """A child that does nothing."""


def _answer(
    template: Callable[[T], str], items: Sequence[T], seconds: float, *, replaceable: bool
) -> bytes | None:
    """What one child writes; None when it takes too long or writes too much."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python warns of forks beside threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _render_and_exit(template, items, writing, seconds)
    os.close(writing)
    try:
        return _read(reading, time.monotonic() + seconds, child if replaceable else None)
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _render_and_exit(
    template: Callable[[T], str], items: Sequence[T], pipe: int, seconds: float
) -> None:
    """The child: writes {"texts": …} or {"problem": …} and ends without cleaning up.

    Whatever happens, an interrupt included: it must not go on as a second copy of its parent.
    """
    try:
        found = _rendered(template, items, seconds)
        with os.fdopen(pipe, "wb") as stream:
            stream.write(json.dumps(found).encode())
    finally:
        os._exit(0)


def _rendered(
    template: Callable[[T], str], items: Sequence[T], seconds: float
) -> dict[str, object]:
    try:
        _limit(seconds)
        return {"texts": [template(item) for item in items]}
    except MemoryError:
        return {"problem": "wants too much memory"}
    except Exception as error:  # noqa: BLE001 whatever a template raises is its own fault
        return {"problem": f"cannot be rendered: {first_line(error)}"}


def _limit(seconds: float) -> None:
    _lower(resource.RLIMIT_CPU, int(seconds) + 1)
    if not _PROC.exists():
        return
    # What the address space holds already, the parent's libraries and weights, is not its fault.
    pages = int((_PROC / "self/statm").read_text(encoding="ascii").split()[0])
    size = pages * resource.getpagesize() + _MEMORY
    _lower(resource.RLIMIT_AS, size)


def _lower(kind: int, to: int) -> None:
    """A limit that is lower already stays; nobody may raise one that the system set."""
    _, most = resource.getrlimit(kind)
    resource.setrlimit(kind, (to if most == resource.RLIM_INFINITY else min(to, most), most))


def _read(pipe: int, until: float, watched: int | None) -> bytes | None:
    """What comes before a moment; None when it is not all there then, or is too much.

    Raises:
        _Idle: nothing came for a while, and the child that is watched did nothing.
    """
    parts: list[bytes] = []
    size = 0
    with DefaultSelector() as selector:
        selector.register(pipe, EVENT_READ)
        while (left := until - time.monotonic()) > 0:
            if not selector.select(min(left, _PATIENCE)):
                if watched is not None and _processor_time(watched) < _IDLE:
                    raise _Idle
                continue
            part = os.read(pipe, 1 << 20)
            if not part:
                return b"".join(parts)
            parts.append(part)
            size += len(part)
            if size > _TEXT_LIMIT:
                return None
    return None


def _processor_time(process: int) -> float:
    """Seconds, as /proc counts them (man 5 proc: utime and stime, behind the name); infinitely
    many without it."""
    if not _PROC.exists():
        return math.inf
    fields = (_PROC / f"{process}/stat").read_text(encoding="ascii", errors="replace")
    ticks = fields.rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def _parsed(answer: bytes | None, seconds: float) -> tuple[list[str], str]:
    if answer is None:
        return [], f"takes longer than {seconds:.0f} s, or writes more than {_TEXT_LIMIT:,} bytes"
    if not answer:
        return [], "made the process that rendered it die"
    found = json.loads(answer)
    return found.get("texts", []), found.get("problem", "")
