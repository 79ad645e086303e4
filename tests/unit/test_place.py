"""A file that is named by hand is found from wherever one stands, or it is said why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterbot.commands.place import by_hand, named_file
from adapterbot.errors import InputError
from tests.example import commit, git


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


def test_a_way_through_a_link_to_the_repository_leads_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of /tmp on macOS."""
    here = tmp_path / "repository"
    (here / "evals").mkdir(parents=True)
    (tmp_path / "way").symlink_to(tmp_path)
    monkeypatch.chdir(here)
    tree, found = named_file(tmp_path / "way" / "repository" / "evals" / "suite.yaml", here)
    assert (tree.root, found) == (here, "evals/suite.yaml")


def test_a_file_that_a_sparse_checkout_leaves_out_is_not_said_to_be_nowhere(tmp_path: Path) -> None:
    """A person was told to commit the suite, which was committed."""
    git(tmp_path, "init", "-q", "-b", "main", "repository")
    root = tmp_path / "repository"
    for name in ("adapters/a.txt", "evals/suite.yaml"):
        (root / name).parent.mkdir()
        (root / name).write_text(name)
    commit(root, "all")
    assert by_hand(root, "main", None).head.read("evals/suite.yaml")
    git(root, "sparse-checkout", "set", "--cone", "adapters")
    head = by_hand(root, "main", None).head
    assert head.read("adapters/a.txt")
    with pytest.raises(InputError, match="does not exist in this sparse checkout"):
        head.read("evals/suite.yaml")
    assert by_hand(root, "main", "main").head.read("evals/suite.yaml")
