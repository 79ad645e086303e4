"""One question, one reply, over the OpenAI chat API, with patience and a memory."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import requests
from urllib3.exceptions import HTTPError

from adapterbot.retry_after import retry_after

_LONGEST_WAIT = 30.0
_REPLY_LIMIT = 1024 * 1024
_TOO_MANY_REQUESTS = 429


class NoReply(Exception):
    """The endpoint gave no usable reply, after all the tries it was given."""


class _TryAgain(Exception):
    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass
class ChatEndpoint:
    """A chat model behind `url` (…/v1). Times are in seconds.

    A question that was answered before is answered from memory. Redirects are not followed: they
    would carry the key, and the model's text, to another host.
    """

    url: str
    key: str | None
    model: str
    max_tokens: int
    timeout: float
    retries: int
    backoff: float
    _session: requests.Session = field(default_factory=requests.Session, init=False, repr=False)
    _replies: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    def ask(self, text: str) -> str:
        """The model's reply to one message, at temperature 0.

        Raises:
            NoReply: refused, or silent after all tries.
        """
        if text not in self._replies:
            self._replies[text] = self._patiently(text)
        return self._replies[text]

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _patiently(self, text: str) -> str:
        wait = self.backoff
        for attempt in range(self.retries + 1):
            try:
                return self._once(text)
            except _TryAgain as error:
                if attempt == self.retries:
                    raise NoReply(f"{error}, {attempt + 1} tries") from error
                time.sleep(min(wait if error.wait is None else error.wait, _LONGEST_WAIT))
                wait *= 2
        raise AssertionError("the last attempt returns or raises")

    def _once(self, text: str) -> str:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            with self._session.post(
                f"{self.url.rstrip('/')}/chat/completions",
                json=body,
                headers=headers,
                timeout=self.timeout,
                allow_redirects=False,
                stream=True,
            ) as response:
                content = response.raw.read(_REPLY_LIMIT + 1, decode_content=True)
        except (requests.ConnectionError, requests.Timeout, HTTPError) as error:
            # urllib3's own errors are those of the body, which requests does not see us read. Their
            # text, as that of the others, holds the URL, which may hold a password.
            raise _TryAgain(type(error).__name__) from error
        except requests.RequestException as error:
            raise NoReply(type(error).__name__) from error
        if response.status_code == _TOO_MANY_REQUESTS or response.status_code >= 500:
            asked = retry_after(response.headers.get("Retry-After"))
            raise _TryAgain(f"status {response.status_code}", asked)
        if response.status_code != requests.codes.ok:
            raise NoReply(f"status {response.status_code}")
        if len(content) > _REPLY_LIMIT:
            raise NoReply("the reply is too long")
        return _content(content)


def _content(body: bytes) -> str:
    """`choices[0].message.content` of a reply."""
    try:
        reply: Any = json.loads(body)
        text = reply["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise NoReply("the reply is not a chat completion") from error
    if not isinstance(text, str):
        raise NoReply("the reply holds no text")
    return text
