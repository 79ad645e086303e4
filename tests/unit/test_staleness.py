"""That an adapter is judged only as a merge would make it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapterbot.changes.selection import Overrides, select
from adapterbot.errors import InputError
from adapterbot.judging.staleness import as_merged, refuse_stale
from tests.example import git
from tests.many_adapters import Change, adapter, behind, build, rename, retrain, write

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return build(tmp_path)


def both(*edits: Change) -> Change:
    def edit(root: Path) -> None:
        for one in edits:
            one(root)

    return edit


def scaled(root: Path) -> None:
    write(root, f"adapters/a/{CONFIG}", json.dumps({"peft_type": "LORA", "lora_alpha": 4096}))


def weights(content: str, path: str = "adapters/a") -> Change:
    return lambda root: write(root, f"{path}/{WEIGHTS}", content)


@pytest.mark.parametrize(
    ("here", "on_base", "file"),
    [
        (weights("for another scale"), scaled, CONFIG),
        (scaled, weights("for another scale"), WEIGHTS),
        (both(rename("adapters/a", "adapters/z"), weights("new", "adapters/z")), scaled, CONFIG),
        (lambda r: write(r, "soup.lock", "{}"), retrain("adapters/a"), WEIGHTS),
    ],
    ids=["weights under its config", "config over its weights", "moved", "locked anew"],
)
def test_attack_half_an_adapter_is_not_judged_with_the_half_that_a_merge_replaces(
    root: Path, here: Change, on_base: Change, file: str
) -> None:
    """A branch from before the base changed one file, which changes the other: what it holds is
    sound, and what Git makes of both without a conflict is another adapter."""
    where = behind(root, on_base, here)
    found = next(a for a in select(where, Overrides()) if a.key == "adapters-a")
    with pytest.raises(InputError, match="changed on the base branch since") as caught:
        refuse_stale(where, found)
    assert caught.value.file == f"adapters/a/{file}"
    assert caught.value.fix == "merge the base branch into this one, or rebase on it"
    git(root, "merge", "-q", "--no-edit", "branch")


def test_attack_a_config_is_not_judged_before_git_merges_it_line_by_line(root: Path) -> None:
    lines = [f'  "option_{n}": 1' for n in range(20)]

    def config(at: int) -> Change:
        changed = [line.replace("1", "2") if n == at else line for n, line in enumerate(lines)]
        text = "{\n" + ",\n".join(changed) + "\n}\n"
        return lambda root: write(root, f"adapters/a/{CONFIG}", text)

    config(99)(root)
    git(root, "commit", "-qam", "spelled out")
    where = behind(root, config(18), config(2))
    (found,) = select(where, Overrides())
    with pytest.raises(InputError, match="changed on the base branch since"):
        refuse_stale(where, found)
    git(root, "merge", "-q", "--no-edit", "branch")
    assert (root / f"adapters/a/{CONFIG}").read_text().count(": 2") == 2


@pytest.mark.parametrize(
    "on_base",
    [
        weights("theirs"),
        both(weights("mine"), lambda r: write(r, "adapters/a/README.md", "x")),
        retrain("adapters/b"),
    ],
    ids=["a conflict", "the same", "another adapter"],
)
def test_what_no_merge_mixes_is_judged(root: Path, on_base: Change) -> None:
    where = behind(root, on_base, weights("mine"))
    (found,) = select(where, Overrides())
    refuse_stale(where, found)


def test_one_that_both_add_conflicts_and_is_judged(root: Path) -> None:
    where = behind(
        root,
        lambda r: adapter(r, "adapters/new", "theirs"),
        both(lambda r: adapter(r, "adapters/new", "mine"), lambda r: write(r, "x", "x")),
    )
    (found,) = select(where, Overrides())
    refuse_stale(where, found)


@pytest.mark.parametrize(
    "on_base", [retrain("adapters/b"), scaled, rename("adapters/b", "adapters/c")]
)
def test_a_named_one_that_the_head_leaves_alone_is_judged_as_the_base_has_it(
    root: Path, on_base: Change
) -> None:
    """Each leg of a matrix names one, whatever the pull request is about."""
    where = behind(root, on_base, retrain("teams/x/adapters/c"))
    for name in ("adapters/a", "adapters/b"):
        (found,) = select(where, Overrides(adapter=name))
        merged = as_merged(where, found)
        if where.base.has(name):
            refuse_stale(merged, found)
            assert {f: merged.head.sha256(f) for f in merged.head.files(name)} == {
                f: where.base.sha256(f) for f in where.base.files(name)
            }
        else:
            with pytest.raises(InputError, match="is no longer on the base branch"):
                refuse_stale(merged, found)


def test_what_the_head_changes_too_is_judged_as_it_has_it(root: Path) -> None:
    where = behind(root, scaled, weights("mine"))
    (found,) = select(where, Overrides(adapter="adapters/a"))
    assert as_merged(where, found) is where
