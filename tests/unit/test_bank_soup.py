"""Soup's interface and its bank.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import adapterbot.bank
from adapterbot.bank import VectorBank, estimate_bank_size, read_bank, write_bank
from adapterbot.errors import InputError

# As Soup 0.77 writes it, byte for byte.
GOLDEN = """{
  "base_model": "meta-llama/Llama-3-8B",
  "entries": [
    {
      "scaling": [
        0.31,
        -0.07
      ],
      "user_id": "user_1"
    }
  ],
  "name": "customer-personalisation",
  "projection_seed": 0,
  "vector_dim": 2
}"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def bank(**changes: Any) -> VectorBank:
    given: dict[str, Any] = {
        "name": "customer-personalisation",
        "base_model": "meta-llama/Llama-3-8B",
        "entries": {"user_1": (0.31, -0.07)},
    }
    return VectorBank(**(given | changes))


def test_the_seeds_example_is_soups_file(here: Path) -> None:
    write_bank(bank(), "./bank.json")
    assert (here / "bank.json").read_text() == GOLDEN
    assert read_bank("bank.json") == bank()
    assert estimate_bank_size(100_000, 128) == 4 * 128 * 128 + 100_000 * 512
    assert adapterbot.bank.__all__


@pytest.mark.parametrize("path", ["../bank.json", "/tmp/bank.json", "x/../../bank.json", "", "a\0"])
def test_no_path_leaves_the_current_directory(here: Path, path: str) -> None:
    with pytest.raises(InputError, match=r"outside|not a path"):
        write_bank(bank(), path)
    with pytest.raises(InputError, match=r"outside|not a path"):
        read_bank(path)


def test_links_are_refused(here: Path, tmp_path: Path) -> None:
    (tmp_path / "target.json").write_text(GOLDEN)
    (tmp_path / "folder").mkdir()
    (here / "bank.json").symlink_to(tmp_path / "target.json")
    (here / "folder").symlink_to(tmp_path / "folder")
    for path in ("bank.json", "folder/bank.json"):
        with pytest.raises(InputError, match="symbolic link"):
            write_bank(bank(), path)
        with pytest.raises(InputError, match="symbolic link"):
            read_bank(path)
    assert (tmp_path / "target.json").read_text() == GOLDEN


def test_the_cap_is_soups_and_the_error_names_our_format(here: Path) -> None:
    vector = tuple(0.123456789 + index for index in range(4096))
    large = bank(entries={f"user_{index}": vector for index in range(200)})
    with pytest.raises(InputError, match="adapterbot bank create"):
        write_bank(large, "bank.json")
    assert not (here / "bank.json").exists()
    (here / "bank.json").write_text(" " * (16 * 1024 * 1024 + 1))
    with pytest.raises(InputError, match="adapterbot bank create"):
        read_bank("bank.json")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "a b"}, "name"),
        ({"name": ""}, "name"),
        ({"base_model": "x" * 513}, "base_model"),
        ({"projection_seed": -1}, "projection_seed"),
        ({"projection_seed": True}, "projection_seed"),
        ({"entries": {"u": (1.0,), "v": (1.0, 2.0)}}, "entries"),
        ({"entries": {}}, "entries"),
        ({"entries": {"u": ()}}, "scaling"),
        ({"entries": {"u": (float("nan"),)}}, "scaling"),
        ({"entries": {"u": (True,)}}, "scaling"),
        ({"entries": {"u": "12"}}, "scaling"),
        ({"entries": {"u": (10**400,)}}, "scaling"),
        ({"entries": {"u\0": (1.0,)}}, "user_id"),
        ({"entries": {"u": (0.0,) * 16_385}}, "scaling"),
        ({"vector_dim": 3}, "entries"),
    ],
)
def test_what_soup_refuses_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        bank(**changes)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"entries": 1}',
        GOLDEN.replace('"user_1"', "1"),
        GOLDEN.replace("0.31", "NaN"),
        GOLDEN.replace("0.31", "1e999"),
        GOLDEN.replace("0.31", '"0.31"'),
        GOLDEN.replace('"vector_dim": 2', '"vector_dim": 3'),
        GOLDEN.replace('"vector_dim": 2', '"vector_dim": "2"'),
        GOLDEN.replace('"user_1"', '"\\ud800"'),
        GOLDEN.replace('"vector_dim": 2', '"vector_dim": 2, "entries": []'),
        GOLDEN.replace('"vector_dim": 2', '"base_model": "\\ud800", "vector_dim": 2'),
        GOLDEN.replace("[\n    {", '[\n    {"scaling": [1, 2], "user_id": "user_1"}, {'),
    ],
)
def test_a_broken_file_is_one_clear_line(here: Path, text: str) -> None:
    (here / "bank.json").write_text(text)
    with pytest.raises(InputError) as caught:
        read_bank("bank.json")
    assert "\n" not in str(caught.value)
    assert caught.value.file == "bank.json"


def test_a_bank_may_be_empty_where_its_dimension_is_named(here: Path) -> None:
    write_bank(bank(entries={}, vector_dim=4), "bank.json")
    assert read_bank("bank.json").dimension == 4
    assert json.loads((here / "bank.json").read_text())["entries"] == []


@pytest.mark.parametrize("numbers", [(-1, 8), (1, 0), (True, 8), (1, 2.5)])
def test_sizes_are_whole_numbers(numbers: Any) -> None:
    with pytest.raises(InputError):
        estimate_bank_size(*numbers)
