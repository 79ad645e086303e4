"""What OpenAI's interface calls a completion and its chunks: the JSON around our text."""

from __future__ import annotations

import secrets
import time
from typing import Any, Literal


class Shape:
    """The JSON around an answer, of a chat or of a completion."""

    def __init__(self, kind: str, model: str, prompt: int) -> None:
        """
        Args:
            kind: `chat.completion` or `text_completion`.
            model: as the client named it.
            prompt: tokens of the prompt.
        """
        self._chat = kind == "chat.completion"
        self._kind = kind
        self._prompt = prompt
        self._head = {
            "id": f"{'chatcmpl' if self._chat else 'cmpl'}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, finish: str, answer: int) -> dict[str, Any]:
        """All of it, of `answer` tokens."""
        content: dict[str, Any] = {"text": text}
        if self._chat:
            content = {"message": {"role": "assistant", "content": text}}
        choice = {"index": 0, **content, "finish_reason": finish, "logprobs": None}
        return {
            **self._head,
            "object": self._kind,
            "choices": [choice],
            "usage": self._usage(answer),
        }

    def start(self) -> dict[str, Any]:
        """The first event of a stream of a chat."""
        return self._chunk({"delta": {"role": "assistant", "content": ""}}, None)

    def part(self, text: str, finish: str | None) -> dict[str, Any]:
        """An event with more text, or with why there is no more."""
        return self._chunk({"delta": {"content": text} if text else {}}, finish, text)

    def usage_only(self, answer: int) -> dict[str, Any]:
        """The last event, where the client asked for the usage."""
        return {**self._chunk({}, None), "choices": [], "usage": self._usage(answer)}

    def _chunk(self, delta: dict[str, Any], finish: str | None, text: str = "") -> dict[str, Any]:
        content = delta if self._chat else {"text": text}
        kind: Literal["chat.completion.chunk", "text_completion"] = (
            "chat.completion.chunk" if self._chat else "text_completion"
        )
        choice = {"index": 0, **content, "finish_reason": finish, "logprobs": None}
        return {**self._head, "object": kind, "choices": [choice]}

    def _usage(self, answer: int) -> dict[str, int]:
        return {
            "prompt_tokens": self._prompt,
            "completion_tokens": answer,
            "total_tokens": self._prompt + answer,
        }
