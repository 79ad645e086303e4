"""Which commit a name stands for, and where two went separate ways, when who made them is not
to be trusted with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapterbot.changes.selection import Overrides, select
from adapterbot.changes.sides import Sides, sides
from adapterbot.commands.place import by_hand
from adapterbot.errors import InputError
from adapterbot.git.commits import resolve_commit
from adapterbot.git.tree import GitTree
from adapterbot.judging.staleness import refuse_stale
from tests.example import commit, git
from tests.many_adapters import adapter, build, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return build(tmp_path)


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
    return by_hand(root, "main", "head").sides()


def test_attack_two_branches_that_merged_each_other_do_not_hide_an_older_adapter(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen from one of the commits that both have, the head changes nothing; but a merge, which
    looks at all of them, takes the head's adapter."""
    where = crossed(root, monkeypatch)
    (found,) = select(where, Overrides())
    assert found.path == "adapters/a"
    with pytest.raises(InputError, match="several newest commits in common") as caught:
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


def stacked(root: Path) -> None:
    """`head` lies on `lower`, and both have merged the base, each at another time."""
    git(root, "checkout", "-q", "-b", "lower")
    adapter(root, "adapters/a", "lower")
    commit(root, "lower")
    git(root, "checkout", "-q", "-b", "head")
    adapter(root, "teams/x/adapters/c", "head")
    adapter(root, "adapters/new", "head")
    commit(root, "head")
    for branch in ("lower", "head"):
        git(root, "checkout", "-q", "main")
        adapter(root, "adapters/b", f"before {branch} merged")
        commit(root, "main goes on")
        git(root, "checkout", "-q", branch)
        git(root, "merge", "-q", "--no-edit", "main")


def stacked_sides(root: Path) -> Sides:
    place = by_hand(root, "lower", "head")
    assert place.disputed == {f"adapters/{name}/adapter_model.safetensors" for name in "ab"}
    return place.sides()


def test_a_branch_on_another_that_both_merged_the_base_is_judged_by_what_it_changes(
    root: Path,
) -> None:
    stacked(root)
    where = stacked_sides(root)
    found = {entry.path: entry for entry in select(where, Overrides())}
    assert found.keys() == {"adapters/b", "adapters/new", "teams/x/adapters/c"}
    for path in ("adapters/new", "teams/x/adapters/c"):
        refuse_stale(where, found[path])
    # Of this one the base branch has an older state, and the two that are shared are two more.
    with pytest.raises(InputError, match="several newest commits in common") as caught:
        refuse_stale(where, found["adapters/b"])
    assert caught.value.file == "adapters/b/adapter_model.safetensors"


@pytest.mark.parametrize("disputed", ["soup.lock", "m/experts/x/adapter_model.safetensors"])
def test_attack_nor_is_what_belongs_to_an_adapter_taken_from_either_side(
    root: Path, disputed: str
) -> None:
    experts = [{"name": n, "path": f"experts/{n}", "digest": "0" * 64} for n in "xy"]
    mixture = {"base_model": "b", "layers": 1, "gate": {"num_task_adapters": 2}, "experts": experts}
    write(root, "m/mole_config.json", json.dumps(mixture))
    write(root, disputed, "once")
    once = GitTree(root, commit(root, "once"))
    write(root, disputed, "since")
    since = GitTree(root, commit(root, "since"))
    write(root, disputed, "here")
    head = GitTree(root, commit(root, "here"))
    start, names = since.parted_at([once, since])
    where = sides(since, head, fork_point=start, disputed=names)
    found = next(a for a in select(where, Overrides()) if a.path in ("m", "adapters/a"))
    with pytest.raises(InputError, match="several newest commits in common") as caught:
        refuse_stale(where, found)
    assert caught.value.file == disputed


def test_attack_a_file_that_only_the_base_has_is_disputed(root: Path) -> None:
    """A merge of what is shared follows renames of folders, and may have it all the same."""
    starts = [GitTree(root, commit(root, name)) for name in ("one", "other")]
    adapter(root, "adapters/new", "base")
    base = GitTree(root, commit(root, "base"))
    start, disputed = base.parted_at(starts)
    assert {name for name in disputed if "new" in name} == disputed != set()
    assert start.has("adapters/new")
