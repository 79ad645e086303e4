"""PyGithub's connection, which hands on nothing that GitHub would not say.

PyGithub takes whatever comes with a status below 400 for what it asked for: the sign-in page of a
network, a proxy's notice, and the 307 with which GitHub answers a write to a repository by a name
that it no longer has. A read by that name is answered 301, which PyGithub follows, and forgets what
the list was to be filtered by.
"""

from __future__ import annotations

import html
import re
from typing import NoReturn
from urllib.parse import urljoin, urlsplit

import requests
from github import GithubException
from github.Requester import (
    HTTPRequestsConnectionClass,
    HTTPSRequestsConnectionClass,
    Requester,
    RequestsResponse,
)

from adapterbot.gh import shapes

_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_SHOWN = 80
# PyGithub makes a number of each, in whatever reply it comes.
_COUNTS = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]+)?")


class StrangeAnswer(Exception):
    """What answered is not GitHub's API, as far as its answer shows.

    Attributes:
        host: who was asked.
        what: what came instead.
    """

    def __init__(self, host: str, what: str) -> None:
        super().__init__(f"{host}: {what}")
        self.host, self.what = host, what


class Renamed(Exception):
    """GitHub has what was asked for under another address."""


class _Http(HTTPRequestsConnectionClass):
    def getresponse(self) -> RequestsResponse:
        return _judged(super().getresponse())


class _Https(HTTPSRequestsConnectionClass):
    def getresponse(self) -> RequestsResponse:
        return _judged(super().getresponse())


def judge_answers() -> None:
    """Have every PyGithub client of this process that is made from now on judge what it is told."""
    Requester.injectConnectionClasses(_Http, _Https)


def _judged(answer: RequestsResponse) -> RequestsResponse:
    """The answer, if PyGithub may see it.

    Raises:
        StrangeAnswer: it is not GitHub's.
        Renamed: it is GitHub's word that the thing is elsewhere.
    """
    reply = answer.response
    for name in _COUNTS:
        if not _NUMBER.fullmatch(reply.headers.get(name, "0")):
            del reply.headers[name]
    if 300 <= reply.status_code < 400:
        _redirected(reply)
    text = reply.text.lstrip()
    is_json = text.startswith(("{", "["))
    if reply.status_code < 300:
        wrong = not is_json and reply.status_code != 204
    else:
        # Of a front end that is overloaded a page is nothing strange.
        later = reply.status_code >= 429 or "retry-after" in reply.headers
        wrong = text.startswith("<") and not later
    if wrong:
        what = f"status {reply.status_code} with {_described(text)}"
        raise StrangeAnswer(urlsplit(reply.url).netloc, what)
    if is_json:
        _as_read(reply)
    return answer


def _as_read(reply: requests.Response) -> None:
    """That a reply in JSON is one which PyGithub, and we, can take apart.

    Raises:
        StrangeAnswer: it is a success and not GitHub's.
        GithubException: a failure without GitHub's words.
    """
    if reply.status_code < 300:
        if wrong := shapes.misfit(reply.request.method or "", reply.url, reply.content):
            what = f"status {reply.status_code} with JSON in which {wrong}"
            raise StrangeAnswer(urlsplit(reply.url).netloc, what)
    elif not shapes.is_refusal(reply.content):
        raise GithubException(reply.status_code, None, dict(reply.headers))


def _redirected(reply: requests.Response) -> NoReturn:
    asked = urlsplit(reply.url)
    place = urlsplit(urljoin(reply.url, reply.headers.get("location", "")))
    here = (asked.scheme, asked.netloc) == (place.scheme, place.netloc) and asked != place
    if here and reply.status_code in {301, 307, 308}:
        raise Renamed
    host = place.netloc.rpartition("@")[2]  # a sign-in page's address may hold a password
    to = f"{place.scheme}://{host}{place.path}" if asked != place else "nowhere"
    raise StrangeAnswer(asked.netloc, f"status {reply.status_code}, a redirection to {to}")


def _described(text: str) -> str:
    if not text:
        return "an empty page"
    if not text.startswith("<"):
        return f"{_line(text)!r}"
    title = _TITLE.search(text)
    return f"a web page titled {_line(html.unescape(title[1]))!r}" if title else "a web page"


def _line(text: str) -> str:
    return " ".join(text.split())[:_SHOWN]
