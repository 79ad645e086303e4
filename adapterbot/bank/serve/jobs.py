"""One request from when it is accepted: its tokens, its text as it grows, its end. (no torch)"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Decode = Callable[[Sequence[int]], str]
Finish = Literal["stop", "length"]
Who = tuple[str | None, str | None]
"""The tenant or the mixture that answers; neither is the bare base."""
_UNFINISHED = "�"  # what a tokenizer decodes half a character to


@dataclass(frozen=True)
class Piece:
    """More text of an answer; with `finish` the last of it; with `error` the end of it all."""

    text: str = ""
    finish: Finish | None = None
    error: Exception | None = None


@dataclass(frozen=True)
class Ask:
    """What a request asks for.

    Attributes:
        prompt: token ids, at least one.
        tenant: whose vectors answer; None for nobody's.
        mixture: the mixture that answers; with neither it is the bare base.
        limit: the most tokens to answer with.
        stop: strings that end the answer and are not part of it.
        choice: how tokens are chosen, as the chooser takes it.
    """

    prompt: tuple[int, ...]
    tenant: str | None
    limit: int
    stop: tuple[str, ...] = ()
    choice: Any = None
    mixture: str | None = None
    row: bytes | None = None

    @property
    def who(self) -> Who:
        """Who answers."""
        return self.tenant, self.mixture


@dataclass
class Job:
    """An `Ask` under way. The scheduler's thread feeds it; `deliver` hands pieces to who waits.

    Attributes:
        account: on whose account it is: the owner of the key; without keys, who answers.
        streamed: the text is wanted as it grows, not only in the end.
    """

    ask: Ask
    deliver: Callable[[Piece], None]
    decode: Decode
    eos: frozenset[int]
    deadline: float
    account: Who
    streamed: bool
    arrived: float = field(default_factory=time.monotonic)
    answer: list[int] = field(default_factory=list)
    first_token: float | None = None
    ended: bool = False
    _cancelled: threading.Event = field(default_factory=threading.Event)
    _shown: int = 0
    _read: int = 0
    _held: str = ""

    def cancel(self) -> None:
        """Nobody waits any more. From any thread."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether anybody still waits."""
        return self._cancelled.is_set()

    def take(self, token: int) -> None:
        """One more token of the answer; a negative one is none, for the model's numbers ended."""
        if token < 0:
            self.fail(ArithmeticError("logits that are not finite"))
            return
        if self.first_token is None:
            self.first_token = time.monotonic()
        if token in self.eos:
            self._end("stop", self._held + self._fresh(last=True))
            return
        self.answer.append(token)
        full = len(self.answer) >= self.ask.limit
        if not (full or self.streamed or self.ask.stop):
            return  # to decode each token takes the model's thread longer than many a pass
        text = self._held + self._fresh(last=full)
        found = min((at for s in self.ask.stop if (at := text.find(s)) >= 0), default=None)
        if found is not None:
            self._end("stop", text[:found])
        elif full:
            self._end("length", text)
        else:
            # The end of the text may be the beginning of a stop string.
            keep = max((_overlap(text, s) for s in self.ask.stop), default=0)
            self._held = text[len(text) - keep :]
            if shown := text[: len(text) - keep]:
                self.deliver(Piece(shown))

    def fail(self, error: Exception) -> None:
        """Ends it with an error."""
        if not self.ended:
            self.ended = True
            self.deliver(Piece(error=error))

    def _end(self, finish: Finish, text: str) -> None:
        self.ended = True
        self.deliver(Piece(text, finish=finish))

    def _fresh(self, *, last: bool) -> str:
        """Text that the newest tokens added; nothing while a character is half there.

        Only the last tokens are decoded, with those before them that were shown last, so that a
        token reads as it does in running text.
        """
        before = self.decode(self.answer[self._shown : self._read])
        text = self.decode(self.answer[self._shown :])
        if not last and (text.endswith(_UNFINISHED) or len(text) <= len(before)):
            return ""
        self._shown, self._read = self._read, len(self.answer)
        return text[len(before) :]


def _overlap(text: str, stop: str) -> int:
    """How many of the last characters of `text` are the first of `stop`."""
    most = min(len(text), len(stop) - 1)
    return next((n for n in range(most, 0, -1) if text.endswith(stop[:n])), 0)
