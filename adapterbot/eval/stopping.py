"""Which tokens can end a stop string: only behind those is the text looked at. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from adapterbot.eval.questions import Ids


class Stopping:
    """Stop strings and the tokenizer that they are looked for with.

    A string that has just been written ends in the last token, so that token shows its last
    character, or a part of it. An answer that ended a token late would still be cut at its first
    stop string (`cut_at_stop`).
    """

    def __init__(self, text: Callable[[Ids], str]) -> None:
        self._text = text
        self._shown: dict[int, str] = {}

    def stopped(self, answer: Sequence[int], stop: Sequence[str]) -> bool:
        """Whether the answer's last token has ended one of the strings."""
        if not any(self._may_end(answer[-1], string) for string in stop):
            return False
        # Each token but a few special ones is a byte or more.
        size = max(len(string.encode()) for string in stop) + 8
        tail = self._text(tuple(answer[-size:]))
        return any(string in tail for string in stop)

    def _may_end(self, token: int, stop: str) -> bool:
        shown = self._shown.get(token)
        if shown is None:
            shown = self._shown[token] = self._text((token,))
        # A text's first space is not shown by every tokenizer; parts of a character are "\ufffd".
        return stop[-1] == " " or stop[-1] in shown or "\ufffd" in shown
