"""What a terminal of any width shows of a comment."""

from __future__ import annotations

import io
import os

import pytest
from rich.console import Console

from adapterbot.cli.terminal import Comment
from tests import command_line

NAME = "customer_satisfaction_on_refunds"
TABLE = f"""\
| Metric | Baseline | Candidate | Δ | 95 % interval | Verdict | |
|:--|--:|--:|--:|:-:|:--|:--|
| `{NAME}` | 100.0 % | 37.0 % | −63.0 pts | [−71.1, −51.4] | ❌ regressed | |
| `dates` | 98.7 % | 98.7 % | 0.0 pts | [−3.6, +3.6] | ✅ ok: identical | why |
"""


def shown(width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(Comment(TABLE))
    return console.export_text()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_no_word_of_a_table_is_cut_however_narrow_the_terminal(width: int) -> None:
    text = shown(width)
    words = text.split()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for word in (NAME, "Baseline", "Candidate", "37.0", "−63.0", "regressed", "identical", "why"):
        assert any(word in one for one in words), f"{word} is not whole in:\n{text}"


def test_where_there_is_room_a_row_is_a_line() -> None:
    assert sum(NAME in line and "regressed" in line for line in shown(160).splitlines()) == 1


def test_a_terminal_of_no_width_is_one_whose_width_nobody_knows() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    unknown, none = (
        command_line.run("bank", "--help", env=environment | width).stdout
        for width in ({}, {"COLUMNS": "0"})
    )
    assert "compact" in none
    assert none == unknown
