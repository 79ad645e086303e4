"""Which commit a name stands for, and where two went separate ways, when who made them is not
to be trusted with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterbot.changes.selection import Overrides, select
from adapterbot.changes.sides import Sides, sides
from adapterbot.commands.place import by_hand
from adapterbot.errors import InputError
from adapterbot.git.commits import resolve_commit
from adapterbot.judging.staleness import refuse_stale
from tests.example import git
from tests.many_adapters import adapter, build, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return build(tmp_path)


def commit(root: Path, message: str) -> str:
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", message)
    return git(root, "rev-parse", "HEAD")


# ---------------------------------------------------------------- names


@pytest.fixture
def theirs(root: Path) -> str:
    """A commit that would judge leniently, on a branch of a stranger's."""
    git(root, "update-ref", "refs/remotes/origin/main", "main")
    git(root, "checkout", "-q", "-b", "theirs")
    write(root, "evals/suite.yaml", "version: 1\ntasks: []\n")
    return commit(root, "theirs")


@pytest.mark.parametrize(
    "tag", ["origin/main", "refs/remotes/origin/main", "refs/remotes/origin/HEAD", "main"]
)
def test_attack_a_tag_by_the_name_of_the_base_is_not_what_a_gate_by_hand_compares_with(
    root: Path, theirs: str, tag: str
) -> None:
    """Git takes a tag before a branch. `git fetch` brings it along with the branch that it is on,
    and the suite of the base may run commands."""
    base = git(root, "rev-parse", "main")
    git(root, "update-ref", f"refs/tags/{tag}", theirs)
    place = by_hand(root, None, None)
    assert (place.context.base_sha, place.fork_point.label) == (base, base[:7])


@pytest.mark.parametrize("name", ["main", "origin/main", "main~0", "main@{0}"])
def test_attack_a_name_that_a_tag_shares_with_a_branch_is_refused(
    root: Path, theirs: str, name: str
) -> None:
    stem = name.partition("~")[0].partition("@")[0]
    git(root, "update-ref", f"refs/tags/{stem}", theirs)
    with pytest.raises(InputError, match="is both a branch and a tag") as caught:
        resolve_commit(root, name, field="--base")
    assert f"refs/tags/{stem}" in (caught.value.fix or "")
    assert resolve_commit(root, f"refs/tags/{stem}") == theirs


def test_attack_what_is_called_by_a_commits_digits_does_not_stand_for_it(
    root: Path, theirs: str
) -> None:
    base = git(root, "rev-parse", "main")
    for place in ("tags", "heads"):
        git(
            root, "update-ref", f"refs/{place}/{base}", theirs if place == "tags" else f"{theirs}~1"
        )
    assert resolve_commit(root, base) == base


def test_a_tag_at_its_branch_or_without_one_goes_by_its_name(root: Path, theirs: str) -> None:
    for name in ("theirs", "v1.0"):
        git(root, "tag", name, theirs)
        assert resolve_commit(root, name) == theirs
    assert resolve_commit(root, "refs/heads/main~0") == git(root, "rev-parse", "main")
    with pytest.raises(InputError, match="is not in this checkout"):
        resolve_commit(root, "refs/heads/v1.0")


# ---------------------------------------------------------------- where they went separate ways


def crossed(root: Path, monkeypatch: pytest.MonkeyPatch) -> Sides:
    """The base has mended an adapter, and merged a side branch from before; the head has the same
    two merged, but kept the adapter as it was."""
    adapter(root, "adapters/a", "worse")
    commit(root, "worse")
    git(root, "checkout", "-q", "-b", "side")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2040-01-01T00:00:00Z")  # Git names the newest first
    commit(root, "side")
    monkeypatch.delenv("GIT_COMMITTER_DATE")
    git(root, "checkout", "-q", "main")
    adapter(root, "adapters/a", "mended")
    commit(root, "mended")
    git(root, "checkout", "-q", "-b", "head", "side")
    git(root, "merge", "-q", "-s", "ours", "--no-edit", "main")
    git(root, "checkout", "-q", "main")
    git(root, "merge", "-q", "--no-edit", "side")
    return placed(root)


def placed(root: Path) -> Sides:
    place = by_hand(root, "main", "head")
    return sides(place.base, place.head, fork_point=place.fork_point, crossed=place.crossed)


def test_attack_two_branches_that_merged_each_other_do_not_hide_an_older_adapter(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen from one of the commits that both have, the head changes nothing; but a merge, which
    looks at all of them, takes the head's adapter."""
    where = crossed(root, monkeypatch)
    (found,) = select(where, Overrides())
    assert found.path == "adapters/a"
    with pytest.raises(InputError, match="have merged each other") as caught:
        refuse_stale(where, found)
    assert caught.value.fix == "merge the base branch into this one"
    git(root, "merge", "-q", "--no-edit", "head")
    assert (root / "adapters/a/adapter_model.safetensors").read_text() == "worse"


def test_once_the_base_is_merged_they_are_told_apart(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crossed(root, monkeypatch)
    git(root, "checkout", "-q", "head")
    git(root, "merge", "-q", "-s", "ours", "--no-edit", "main")
    where = placed(root)
    (found,) = select(where, Overrides())
    refuse_stale(where, found)


def test_what_nobody_changed_is_not_judged_however_they_merged(root: Path) -> None:
    for branch in ("one", "other"):
        git(root, "checkout", "-q", "-b", branch, "main")
        commit(root, branch)
    for branch, merged in (("main", "one"), ("head", "other")):
        git(root, "checkout", "-q", *(["main"] if branch == "main" else ["-b", branch, "one"]))
        git(root, "merge", "-q", "--no-edit", merged)
    git(root, "checkout", "-q", "main")
    git(root, "merge", "-q", "--no-edit", "other")
    assert select(placed(root), Overrides()) == ()
