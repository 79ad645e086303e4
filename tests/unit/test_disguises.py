"""That what is judged is what people's checkouts hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from adapterbot.changes.disguises import refuse_disguised
from adapterbot.changes.selection import Overrides, select
from adapterbot.changes.sides import Sides, sides
from adapterbot.errors import InputError
from adapterbot.git import attributes
from adapterbot.git.tree import GitTree
from tests.example import commit, git
from tests.many_adapters import Change, build, change, retrain, write

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return build(tmp_path)


def refused(where: Sides, path: str = "adapters/a") -> InputError:
    """Why one is refused, which a search must have found."""
    assert path in [entry.path for entry in select(where, Overrides())]
    with pytest.raises(InputError) as caught:
        refuse_disguised(where, path)
    return caught.value


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "twin",
    [f"adapters/A/{WEIGHTS}", f"Adapters/a/{CONFIG}", f"adapters/a/{WEIGHTS.upper()}"],
)
def test_attack_a_file_beside_an_adapter_does_not_take_its_place_where_case_does_not_count(
    root: Path, twin: str
) -> None:
    """Another file to Git, and to the runner; on macOS and Windows a pull writes it over the
    adapter's own."""
    error = refused(change(root, lambda r: write(r, twin, "worse")))
    assert error.file == twin
    assert "is one file with adapters/a/" in error.message


def test_attack_nor_does_one_whose_accents_are_composed_otherwise(root: Path) -> None:
    composed, apart = (f"adapters/{name}/{CONFIG}" for name in ("caf\u00e9", "cafe\u0301"))
    write(root, composed, "{}")
    commit(root, "one")
    where = change(root, lambda r: write(r, apart, "{}"))
    with pytest.raises(InputError, match="is one file with"):
        refuse_disguised(where, "adapters/caf\u00e9")


def test_twins_that_were_there_are_nobodys_attack(root: Path) -> None:
    write(root, f"adapters/A/{WEIGHTS}", "old")
    commit(root, "twins")
    refuse_disguised(change(root, retrain("adapters/a")), "adapters/a")


# ---------------------------------------------------------------- attributes


@pytest.mark.parametrize(
    ("file", "line"),
    [
        (".gitattributes", "adapter_config.json working-tree-encoding=UTF-7"),
        ("adapters/.gitattributes", "* ident"),
        ("adapters/a/.gitattributes", "* export-subst"),
        (".gitattributes", "adapters/** filter=utf-8"),
        (".gitattributes", "[attr]tidy filter=theirs\nadapters/** tidy"),
    ],
)
def test_attack_an_attribute_that_rewrites_an_adapter_as_it_is_checked_out_is_refused(
    root: Path, file: str, line: str
) -> None:
    error = refused(change(root, lambda r: write(r, file, f"{line}\n")))
    assert "would be written into checkouts otherwise than it is judged" in error.message
    assert error.fix == "remove that from .gitattributes"


def test_attack_such_an_attribute_does_make_another_adapter_of_it(
    root: Path, tmp_path: Path
) -> None:
    """Curved quotation marks are part of a name to whoever reads the blob; in a checkout in ASCII
    they are straight, and end it."""
    hidden = '{"lora_alpha": 16, "revision": "main\u201d, \u201dlora_alpha\u201d: 4096}'
    write(root, f"adapters/a/{CONFIG}", hidden)
    git(root, "commit", "-qam", "hidden")
    write(root, ".gitattributes", f"{CONFIG} working-tree-encoding=ASCII//TRANSLIT\n")
    git(root, "add", ".gitattributes")
    git(root, "commit", "-qm", "disguised")
    where = sides(*(GitTree(root, git(root, "rev-parse", ref)) for ref in ("HEAD~1", "HEAD")))
    assert "ASCII//TRANSLIT" in refused(where).message
    git(tmp_path, "clone", "-q", str(root), str(tmp_path / "theirs"))
    config = (tmp_path / "theirs" / f"adapters/a/{CONFIG}").read_text(encoding="utf-8")
    assert json.loads(config)["lora_alpha"] == 4096


def lfs(root: Path) -> None:
    write(root, ".gitattributes", "*.safetensors filter=lfs diff=lfs merge=lfs -text\n")


def utf8(root: Path) -> None:
    write(root, ".gitattributes", "*.json text working-tree-encoding=UTF-8 eol=lf\n")


def elsewhere(root: Path) -> None:
    write(root, ".gitattributes", "*.ps1 working-tree-encoding=UTF-16LE\nLICENSE ident\n")


@pytest.mark.parametrize("edit", [lfs, utf8, elsewhere])
def test_attributes_of_lfs_or_of_other_files_are_no_reason(root: Path, edit: Change) -> None:
    assert select(change(root, edit), Overrides()) == ()


def test_an_attribute_that_the_base_has_is_its_own_affair(root: Path) -> None:
    write(root, ".gitattributes", "*.json ident\n")
    commit(root, "ident")
    where = change(root, lambda r: write(r, ".gitattributes", "*.json ident\n*.bin -diff\n"))
    assert select(where, Overrides()) == ()


def test_attack_an_attribute_that_the_base_has_hides_no_other(root: Path) -> None:
    write(root, ".gitattributes", "*.json filter=tidy\n")
    commit(root, "tidy")
    both = "*.json filter=tidy working-tree-encoding=ASCII//TRANSLIT\n"
    error = refused(change(root, lambda r: write(r, ".gitattributes", both)))
    assert "by working-tree-encoding=ASCII//TRANSLIT and filter=tidy" in error.message


def test_git_is_asked_once_about_the_attributes_of_all_adapters(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index of a large repository takes seconds to make, and there may be hundreds of them."""
    asked: list[str] = []
    ask = attributes.rewritten

    def counted(repository: Path, commit: str, names: Sequence[str]) -> dict[str, str]:
        asked.append(commit)
        return ask(repository, commit, names)

    monkeypatch.setattr(attributes, "rewritten", counted)
    where = change(root, lambda r: write(r, ".gitattributes", "*.bin -text\n"))
    assert select(where, Overrides()) == ()
    assert len(asked) == 2  # before, and after
