"""What a client is sent of an answer that grows faster than it is written to."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from adapterbot.bank.serve.answering import _Client
from adapterbot.bank.serve.jobs import Piece
from adapterbot.bank.serve.protocol import Refused


def client(*pieces: Piece) -> _Client:
    """Who looks when these have come; neither request nor job is looked at then."""
    queue = asyncio.Queue[Piece]()
    for piece in pieces:
        queue.put_nowait(piece)
    return _Client(cast("Any", None), cast("Any", None), queue)


def test_what_came_meanwhile_goes_out_as_one() -> None:
    found = asyncio.run(client(Piece("a"), Piece("b"), Piece("c", "stop")).more())
    assert found == Piece("abc", "stop")


def test_nothing_is_waited_for_once_there_is_text() -> None:
    assert asyncio.run(client(Piece("a")).more()) == Piece("a")


def test_a_failure_is_told_also_behind_text() -> None:
    with pytest.raises(Refused):
        asyncio.run(client(Piece("a"), Piece(error=ValueError("x"))).more())
