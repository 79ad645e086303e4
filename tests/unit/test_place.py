"""A file that is named by hand is found from wherever one stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterbot.commands.place import named_file


@pytest.mark.parametrize(
    ("typed", "root", "name"),
    [
        ("evals/suite.yaml", "repository", "evals/suite.yaml"),
        ("adapters/../evals/suite.yaml", "repository", "evals/suite.yaml"),
        ("../repository/evals/suite.yaml", "repository", "evals/suite.yaml"),
        ("../elsewhere/suite.yaml", "elsewhere", "suite.yaml"),
        ("../../suites/suite.yaml", "../suites", "suite.yaml"),
    ],
)
def test_a_way_up_is_a_way_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, root: str, name: str
) -> None:
    """`eval --suite ../evals/suite.yaml` was refused for leaving the repository."""
    here = tmp_path / "projects" / "repository"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    tree, found = named_file(Path(typed), here)
    assert tree.root == (tmp_path / "projects" / root).resolve()
    assert found == name
