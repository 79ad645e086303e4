"""Which adapters a change is about, in a repository of many: seen from the diff, and from nothing
that whoever made the change could choose."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from adapterbot.changes.selection import Overrides, removed, select
from adapterbot.changes.sides import Sides, sides
from adapterbot.commands.place import by_hand
from adapterbot.config import AdapterConfig
from adapterbot.errors import InputError
from adapterbot.git.tree import GitTree
from adapterbot.judging.staleness import refuse_stale
from tests.example import commit, git
from tests.many_adapters import (
    Change,
    adapter,
    behind,
    build,
    change,
    delete,
    listing,
    rename,
    retrain,
    write,
)

OWN_POLICY = "  - path: adapters/b\n    policy: {fail_on: []}\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return build(tmp_path)


def chosen(root: Path, *edits: Change) -> tuple[AdapterConfig, ...]:
    return select(change(root, *edits), Overrides())


def paths(found: tuple[AdapterConfig, ...]) -> list[str]:
    return [entry.path for entry in found]


# ---------------------------------------------------------------- from the diff


def test_only_what_changed_is_judged_each_under_its_own_key(root: Path) -> None:
    found = chosen(root, retrain("adapters/b"), retrain("teams/x/adapters/c"))
    assert [(a.path, a.key) for a in found] == [
        ("adapters/b", "adapters-b"),
        ("teams/x/adapters/c", "teams-x-adapters-c"),
    ]


def test_what_git_holds_under_one_id_is_not_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data and base model of a repository may be gigabytes, and most changes touch neither."""
    read: list[str] = []
    whole = GitTree.sha256

    def noted(tree: GitTree, path: str) -> str:
        read.append(path)
        return whole(tree, path)

    monkeypatch.setattr(GitTree, "sha256", noted)
    assert len(chosen(root, retrain("adapters/a"))) == 1
    assert {path.rpartition("/")[0] for path in read} == {"adapters/a"}


def test_a_change_beside_the_adapters_judges_none(root: Path) -> None:
    assert chosen(root, lambda r: write(r, "README.md", "x")) == ()


@pytest.mark.parametrize("name", ["README.md", "LICENSE"])
def test_a_text_about_an_adapter_judges_none_also_behind_a_base_that_retrained_it(
    root: Path, name: str
) -> None:
    where = behind(root, retrain("adapters/a"), lambda r: write(r, f"adapters/a/{name}", "x"))
    assert select(where, Overrides()) == ()


@pytest.mark.parametrize("name", ["readme.safetensors", "tokenizer.json", "training_args.bin"])
def test_any_other_file_of_its_folder_judges_it(root: Path, name: str) -> None:
    assert paths(chosen(root, lambda r: write(r, f"adapters/a/{name}", "x"))) == ["adapters/a"]


@pytest.mark.parametrize("path", ["soup.yaml", "soup.lock", "data/train.jsonl", "base/config.json"])
def test_what_all_are_made_from_judges_all(root: Path, path: str) -> None:
    extra = {"soup.yaml": "base: ./base\ndata: {train: ./data/train.jsonl}\nlr: 1\n"}
    found = chosen(root, lambda r: write(r, path, extra.get(path, '{"new": 1}\n')))
    assert len(found) == 3


def test_a_suite_that_all_share_is_no_reason_to_judge_and_comes_from_the_base(root: Path) -> None:
    weaker = change(root, lambda r: write(r, "evals/suite.yaml", "version: 1\n# weaker\n"))
    assert select(weaker, Overrides()) == ()
    found = chosen(root, retrain("adapters/a"), lambda r: listing(r, "adapters/b"))
    assert [(a.path, a.suite) for a in found] == [("adapters/a", "evals/suite.yaml")]


def test_attack_an_adapter_at_the_root_does_not_pass_for_one_that_moved(root: Path) -> None:
    """The mistake: it was taken for gone, and the new one beside it for the same under a new name,
    so that nobody judged it."""
    git(root, "rm", "-rq", "adapters", "teams")
    listing(root, ".")
    change(root, lambda r: adapter(r, "."))
    beside = chosen(root, lambda r: adapter(r, "other"))
    assert [(a.path, a.key) for a in beside] == [("other", "other")]
    both = chosen(root, lambda r: adapter(r, ".", "bad"), lambda r: adapter(r, "more"))
    assert [a.path for a in both] == [".", "more"]
    assert [a.path for a in chosen(root, delete("adapter_config.json"))] == ["."]


def test_an_adapter_that_moves_to_the_root_keeps_its_key(root: Path) -> None:
    def up(at: Path) -> None:
        for file in (at / "adapters" / "a").iterdir():
            file.rename(at / file.name)

    assert [(a.path, a.key) for a in chosen(root, up)] == [(".", "adapters-a")]


def test_one_adapter_inside_another_is_its_own(root: Path) -> None:
    git(root, "checkout", "-q", "-b", "nested")
    adapter(root, "adapters/a/variant")
    listing(root, "adapters/a", "adapters/a/variant", "adapters/b")
    commit(root, "nested")
    assert paths(chosen(root, retrain("adapters/a/variant"))) == ["adapters/a/variant"]
    assert paths(chosen(root, retrain("adapters/a"))) == ["adapters/a"]


# ---------------------------------------------------------------- added


def test_an_added_adapter_is_judged_whoever_lists_it(root: Path) -> None:
    found = chosen(root, lambda r: adapter(r, "deep/er/new"), retrain("adapters/a"))
    assert paths(found) == ["adapters/a", "deep/er/new"]
    assert found[1].baseline == "base-ref"


@pytest.mark.parametrize("place", ["evals", "teams/x", "."])
def test_attack_an_adapter_in_a_folder_that_was_there_is_judged_too(root: Path, place: str) -> None:
    assert paths(chosen(root, lambda r: adapter(r, place))) == [place]


@pytest.mark.parametrize("path", ["adapters/step-2", ".hidden/new", "users.safetensors"])
def test_attack_an_adapter_that_a_search_passes_over_is_judged_once_it_is_listed(
    root: Path, path: str
) -> None:
    def edit(root: Path) -> None:
        if path.endswith(".safetensors"):
            write(root, path, "vectors")
        else:
            adapter(root, path)
        listing(root, "adapters/a", "adapters/b", "teams/x/adapters/c", path)

    assert paths(chosen(root, edit)) == [path]


def test_attack_one_that_a_search_passes_over_has_not_moved_to_a_decoy(root: Path) -> None:
    git(root, "checkout", "-q", "-b", "listed")
    adapter(root, "adapters/step-2")
    listing(root, "adapters/step-2")
    commit(root, "listed")
    found = chosen(
        root,
        lambda r: adapter(r, "decoy", "weights of adapters/step-2"),
        lambda r: adapter(r, "adapters/step-2", "worse"),
    )
    assert paths(found) == ["adapters/step-2", "decoy"]


def test_attack_an_adapter_in_the_guise_of_an_expert_is_not_passed_over(root: Path) -> None:
    def hidden(root: Path) -> None:
        write(root, "teams/mole_config.json", "{}")
        adapter(root, "teams/experts/new")

    assert "teams" in paths(chosen(root, hidden))


def test_attack_an_adapter_that_passed_when_it_was_added_is_not_replaced_unseen(
    root: Path,
) -> None:
    """What no configuration lists was judged when it came, and never again."""
    change(root, lambda r: adapter(r, "adapters/new", "good"))
    (found,) = chosen(root, lambda r: adapter(r, "adapters/new", "worse"))
    assert (found.path, found.key) == ("adapters/new", "adapters-new")
    assert chosen(root, lambda r: write(r, "README.md", "x")) == ()
    assert paths(chosen(root, lambda r: write(r, "data/train.jsonl", "{}\n{}\n"))) == [
        "adapters/a",
        "adapters/b",
        "teams/x/adapters/c",
    ]


@pytest.mark.parametrize("named", [None, "adapters/x/new"])
def test_attack_what_it_is_judged_by_does_not_come_nearer_with_it(
    root: Path, named: str | None
) -> None:
    """A training config in a folder between names the base model of both sides."""
    for name in ("evals/suite.yaml", "soup.yaml"):
        write(root, f"adapters/{name}", "strict")
    change(root, lambda r: adapter(r, "adapters/x/new", "good"))

    def edit(root: Path) -> None:
        adapter(root, "adapters/x/new", "worse")
        write(root, "adapters/x/soup.yaml", "base: ./quiet\n")
        (root / "adapters/evals/suite.yaml").unlink()

    where = change(root, edit)
    found = next(a for a in select(where, Overrides(named)) if a.path == "adapters/x/new")
    assert (found.suite, found.config) == ("adapters/evals/suite.yaml", "adapters/soup.yaml")


def test_attack_one_that_nothing_lists_and_the_base_has_renamed_is_told_to_merge(
    root: Path,
) -> None:
    adapter(root, "spare/x", "weights\n" * 9)
    commit(root, "spare")
    where = behind(root, rename("spare/x", "spare/y"), lambda r: adapter(r, "spare/x", "worse"))
    (found,) = select(where, Overrides())
    assert found.path == "spare/x"
    with pytest.raises(InputError, match="no longer on the base branch"):
        refuse_stale(where, found)


def test_the_experts_of_a_listed_mixture_are_judged_with_it(root: Path) -> None:
    experts = [{"name": name, "path": f"../{name}", "digest": "0" * 64} for name in "de"]
    mixture = {"base_model": "b", "layers": 1, "gate": {"num_task_adapters": 2}, "experts": experts}
    for name in "de":
        adapter(root, name)
    write(root, "m/mole_config.json", json.dumps(mixture))
    listing(root, "m")
    commit(root, "listed")
    assert paths(chosen(root, retrain("d"))) == ["m"]


def test_checkpoints_that_the_base_lists_as_an_archive_are_no_adapters(root: Path) -> None:
    text = (root / "adapterbot.yaml").read_text()
    entry = "  - path: adapters/a\n"
    write(root, "adapterbot.yaml", text.replace(entry, f"{entry}    archive: runs/a/*\n"))
    git(root, "commit", "-qam", "an archive")

    def run(root: Path, weights: str, count: int) -> None:
        for epoch in range(count):
            adapter(root, f"runs/a/epoch-{epoch}", f"{weights} {epoch}")
        adapter(root, "runs/a/epoch-0/more")
        adapter(root, "adapters/a", weights)

    added = chosen(root, lambda r: run(r, "first", 70))
    assert paths(added) == ["adapters/a", "runs/a/epoch-0/more"]
    assert paths(chosen(root, lambda r: run(r, "second", 70))) == ["adapters/a"]


def test_attack_an_archive_that_the_head_lists_hides_nothing(root: Path) -> None:
    def hidden(root: Path) -> None:
        adapter(root, "adapters/new")
        text = (root / "adapterbot.yaml").read_text()
        entry = "  - path: adapters/a\n"
        write(root, "adapterbot.yaml", text.replace(entry, f"{entry}    archive: adapters/*\n"))

    assert "adapters/new" in paths(chosen(root, hidden))


def test_one_that_nothing_lists_and_no_suite_judges_is_said_and_passed_over(root: Path) -> None:
    """An example, or an adapter that is kept aside, in a repository whose suites are elsewhere."""

    def elsewhere(root: Path) -> None:
        rename("evals/suite.yaml", "dates.yaml")(root)
        text = (root / "adapterbot.yaml").read_text()
        write(root, "adapterbot.yaml", text.replace("evals/suite.yaml", "dates.yaml"))
        adapter(root, "examples/x")
        write(root, "examples/y/README.md", "an adapter comes here")

    change(root, elsewhere)
    said: list[str] = []
    where = change(root, retrain("examples/x"), retrain("adapters/a"))
    assert paths(select(where, Overrides(), said.append)) == ["adapters/a"]
    (line,) = said
    assert line.startswith("examples/x changes and is not judged: no configuration lists it")
    assert line.endswith("the base branch has no evals/suite.yaml")
    named = select(where, Overrides(suite="dates.yaml"), said.append)
    assert paths(named) == ["adapters/a", "examples/x"]
    # Attack: one that comes is judged, though it be in a folder that was there.
    assert paths(chosen(root, retrain("examples/y"))) == ["examples/y"]


def test_what_a_training_run_left_where_git_ignores_it_is_no_change(
    root: Path,
) -> None:
    write(root, ".gitignore", "outputs/\nscratch/*/adapter_*\n")
    commit(root, "ignored")
    for path in ("outputs/run", "scratch/x", "new"):
        adapter(root, path)
    where = by_hand(root, "main", None).sides()
    assert paths(select(where, Overrides())) == ["new"]
    assert paths(select(where, Overrides("outputs/run"))) == ["outputs/run"]


def test_paths_that_make_the_same_key_get_two(root: Path) -> None:
    # The attack: a second adapter under the first one's key, so that no report can hold both.
    found = chosen(
        root,
        retrain("adapters/a"),
        lambda r: adapter(r, "adapters-a"),
        lambda r: adapter(r, "adapters/A"),
        lambda r: adapter(r, "Adapters a"),
    )
    keys = [a.key for a in found]
    assert len(keys) == len(set(keys)) == 4
    assert keys[0] == "adapters-a"  # the listed one keeps its own


def test_more_adapters_than_a_report_holds_are_refused_in_one_line(root: Path) -> None:
    def many(root: Path) -> None:
        for i in range(65):
            adapter(root, f"new/{i}")

    with pytest.raises(InputError, match="changes 65 adapters"):
        chosen(root, many)


# ---------------------------------------------------------------- renamed


def test_a_renamed_adapter_keeps_key_policy_and_baseline(root: Path) -> None:
    (found,) = chosen(root, rename("adapters/a", "models/dates"))
    assert (found.path, found.key, found.baseline) == ("models/dates", "adapters-a", "adapters/a")
    assert found.suite == "evals/suite.yaml"


def test_attack_an_adapter_that_moves_to_a_name_of_no_text_does_not_end_the_gate(
    root: Path,
) -> None:
    """No report can hold such a name, so none was written: an older, green comment stood."""
    new = os.fsdecode(b"adapters/\xff")
    with pytest.raises(InputError, match=r"adapters/\\udcff: has a name that is no text"):
        chosen(root, rename("adapters/a", new))


def test_a_renamed_and_retrained_adapter_is_still_the_same_one(root: Path) -> None:
    # The attack: a bad adapter under a new name, which then only has to beat the bare base model.
    def edit(root: Path) -> None:
        rename("adapters/a", "models/dates")(root)
        adapter(root, "models/dates", "other weights")

    (found,) = chosen(root, edit)
    assert (found.key, found.baseline) == ("adapters-a", "adapters/a")


def test_several_renames_are_told_apart_by_what_they_hold(root: Path) -> None:
    found = chosen(root, rename("adapters/a", "m/1"), rename("adapters/b", "m/0"))
    assert {(a.path, a.baseline) for a in found} == {("m/1", "adapters/a"), ("m/0", "adapters/b")}


def test_attack_two_that_move_and_change_do_not_swap_their_policies(root: Path) -> None:
    """A file of the one that is judged laxly, put beside the other, made them one."""
    lax = "    policy: {fail_on: []}\n"
    text = (root / "adapterbot.yaml").read_text()
    entry = "  - path: adapters/b\n    suite: evals/suite.yaml\n"
    write(root, "adapterbot.yaml", text.replace(entry, entry + lax))
    write(root, "adapters/b/README.md", "b's own")
    commit(root, "lax")

    def swap(root: Path) -> None:
        rename("adapters/a", "models/a")(root)
        rename("adapters/b", "models/b")(root)
        (root / "models/b/README.md").rename(root / "models/a/README.md")
        for name in "ab":
            adapter(root, f"models/{name}", f"worse {name}")
            write(root, f"models/{name}/adapter_config.json", "{}")

    with pytest.raises(InputError, match="which became which cannot be told"):
        chosen(root, swap)


def test_a_tree_that_moves_may_change_what_no_adapter_answers_by(root: Path) -> None:
    text = (root / "adapterbot.yaml").read_text()
    write(root, "adapterbot.yaml", text.replace("  - path: adapters/b\n", OWN_POLICY))
    git(root, "commit", "-qam", "a policy of its own")

    def edit(root: Path) -> None:
        rename("adapters", "models/adapters")(root)
        for name in "ab":
            write(root, f"models/adapters/{name}/README.md", f"models/adapters/{name}")
        retrain("models/adapters/b")(root)

    found = chosen(root, edit)
    assert [(a.path, a.baseline) for a in found] == [
        (f"models/adapters/{name}", f"adapters/{name}") for name in "ab"
    ]


def test_what_moved_along_is_found_where_it_is_now(root: Path) -> None:
    git(root, "checkout", "-q", "-b", "own")
    write(root, "adapters/a/soup.yaml", "base: ../../base\ndata: {train: ../../data/train.jsonl}\n")
    write(
        root,
        "adapterbot.yaml",
        "adapters:\n  - path: adapters/a\n    config: adapters/a/soup.yaml\n"
        "    lock: adapters/a/soup.lock\n",
    )
    commit(root, "own config")
    (found,) = chosen(root, rename("adapters/a", "models/dates"))
    assert (found.config, found.lock) == ("models/dates/soup.yaml", "models/dates/soup.lock")


@pytest.mark.parametrize(
    ("old", "new"), [("teams/x", "teams/y"), ("teams/x", "y"), ("teams", "groups")]
)
def test_a_folder_that_is_renamed_takes_the_adapters_configuration_along(
    root: Path, old: str, new: str
) -> None:
    write(root, "teams/x/soup.yaml", "base: ../../base\ndata: {train: ../../data/train.jsonl}\n")
    write(root, "teams/x/soup.lock", "{}")
    write(
        root,
        "adapterbot.yaml",
        "adapters:\n  - path: teams/x/adapters/c\n    config: teams/x/soup.yaml\n"
        "    lock: teams/x/soup.lock\n",
    )
    commit(root, "beside the adapter")
    (found,) = chosen(root, rename(old, new))
    folder = "groups/x" if new == "groups" else new
    assert found.path == f"{folder}/adapters/c"
    assert (found.config, found.lock) == (f"{folder}/soup.yaml", f"{folder}/soup.lock")


def test_a_copy_is_new_and_the_original_untouched(root: Path) -> None:
    def copy(root: Path) -> None:
        adapter(root, "adapters/copy", "weights of adapters/a")

    (found,) = chosen(root, copy)
    assert (found.path, found.baseline) == ("adapters/copy", "base-ref")


# ---------------------------------------------------------------- a branch behind its base


def renamed_on_base(root: Path) -> None:
    rename("adapters/a", "models/dates")(root)
    listing(root, "models/dates", "adapters/b", "teams/x/adapters/c")


def merged(root: Path) -> Sides:
    git(root, "checkout", "-q", "branch")
    git(root, "merge", "-q", "--no-edit", "main")
    base, head = (GitTree(root, git(root, "rev-parse", ref)) for ref in ("main", "branch"))
    return sides(base, head)


@pytest.mark.parametrize(
    "here",
    [
        lambda root: write(root, "adapters/a/adapter_model.safetensors", "weights of adapters/A"),
        lambda root: write(root, "adapters/a/tokenizer.json", "{}"),
        rename("adapters/a", "elsewhere/dates"),
        lambda root: write(root, "soup.lock", "{}"),
    ],
    ids=["retrained", "added to", "moved elsewhere", "locked anew"],
)
def test_attack_an_adapter_that_the_base_renamed_since_is_not_passed_over(
    root: Path, here: Change
) -> None:
    """Git follows a rename: what the branch does under the old name is merged under the new one."""
    where = behind(root, renamed_on_base, here)
    (found,) = [entry for entry in select(where, Overrides()) if entry.path == "models/dates"]
    with pytest.raises(InputError, match="the base branch has it since") as caught:
        refuse_stale(where, found)
    assert caught.value.file == "models/dates"
    assert caught.value.fix == "merge the base branch into this one, or rebase on it"


def test_once_the_base_is_merged_the_renamed_adapter_is_judged(root: Path) -> None:
    def retrained_a_little(root: Path) -> None:
        adapter(root, "adapters/a", "weights\n" * 50)

    retrained_a_little(root)
    git(root, "commit", "-qam", "more to compare")
    behind(root, renamed_on_base, lambda r: adapter(r, "adapters/a", "weights\n" * 49 + "new\n"))
    where = merged(root)
    (found,) = select(where, Overrides())
    assert (found.path, found.baseline) == ("models/dates", "base-ref")
    refuse_stale(where, found)


def test_of_a_tree_that_the_base_renamed_only_what_the_branch_changes_is_told_to_merge(
    root: Path,
) -> None:
    def renamed(root: Path) -> None:
        rename("adapters", "models/adapters")(root)
        listing(root, *(f"models/adapters/{name}" for name in "ab"), "teams/x/adapters/c")

    where = behind(root, renamed, retrain("adapters/b"))
    (found,) = select(where, Overrides())
    assert found.path == "models/adapters/b"
    with pytest.raises(InputError, match="the base branch has it since"):
        refuse_stale(where, found)


def test_a_branch_that_leaves_the_renamed_adapter_alone_need_not_merge(root: Path) -> None:
    where = behind(root, renamed_on_base, retrain("adapters/b"))
    assert paths(select(where, Overrides())) == ["adapters/b"]


def test_attack_one_that_is_named_by_its_old_place_is_not_compared_with_the_bare_base(
    root: Path,
) -> None:
    where = behind(root, renamed_on_base, retrain("adapters/a"))
    (found,) = select(where, Overrides(adapter="adapters/a"))
    with pytest.raises(InputError, match="no longer on the base branch") as caught:
        refuse_stale(where, found)
    assert caught.value.fix == "merge the base branch into this one, or rebase on it"


def test_one_that_only_the_head_lacks_is_not_called_stale(root: Path) -> None:
    where = change(root, delete("adapters/a"))
    (found,) = select(where, Overrides())
    refuse_stale(where, found)


# ---------------------------------------------------------------- removed


def test_an_adapter_that_goes_and_is_no_longer_listed_is_removed(root: Path) -> None:
    def unlist(root: Path) -> None:
        listing(root, "adapters/b", "teams/x/adapters/c")

    where = change(root, delete("adapters/a"), unlist)
    (found,) = select(where, Overrides())
    assert found.path == "adapters/a"
    assert removed(where, found)


def test_the_last_one_goes_with_its_configuration_or_had_none(root: Path) -> None:
    def goes(path: str) -> bool:
        where = change(root, delete("adapters/a"), delete(path))
        return [removed(where, found) for found in select(where, Overrides())] == [True]

    for path in ("adapters/b", "teams"):
        delete(path)(root)
    listing(root, "adapters/a")
    git(root, "commit", "-qam", "one adapter")
    git(root, "checkout", "-q", "-b", "listed")
    assert goes("adapterbot.yaml")
    git(root, "checkout", "-q", "main")
    git(root, "rm", "-q", "adapterbot.yaml")
    git(root, "commit", "-qm", "no configuration")
    assert goes("data")


def test_attack_one_that_a_config_elsewhere_still_lists_is_not_just_removed(root: Path) -> None:
    git(root, "mv", "adapterbot.yaml", "policy.yaml")
    git(root, "commit", "-qm", "elsewhere")
    where = change(root, delete("adapters/a"))
    where = sides(where.base, where.head, "policy.yaml")
    (found,) = select(where, Overrides())
    assert not removed(where, found)


def test_what_decided_is_not_said_to_be_a_file_that_the_base_does_not_have(root: Path) -> None:
    changed = change(root, lambda root: listing(root, "adapters/a"))
    said = "adapterbot.yaml is changed here; the version on the base branch was used"
    assert changed.notes == (said,)
    change(root, delete("adapterbot.yaml"))
    added = change(root, lambda root: listing(root, "adapters/a"))
    said = "adapterbot.yaml is added here; the base branch has none, so the defaults were used"
    assert added.notes == (said,)


def test_one_that_goes_while_it_is_listed_or_another_comes_is_not_just_removed(root: Path) -> None:
    git(root, "checkout", "-q", "-b", "one")
    where = change(root, delete("adapters/a"))
    (found,) = select(where, Overrides())
    assert not removed(where, found)
    git(root, "checkout", "-q", "main")

    def swap(root: Path) -> None:
        delete("adapters/a")(root)
        for name in ("x", "y"):
            adapter(root, f"adapters/{name}", name)
        listing(root, "adapters/b", "teams/x/adapters/c", "adapters/x", "adapters/y")

    where = change(root, swap)
    gone = next(a for a in select(where, Overrides()) if a.path == "adapters/a")
    assert not removed(where, gone)


def test_one_may_go_while_another_only_moves(root: Path) -> None:
    def both(root: Path) -> None:
        delete("adapters/a")(root)
        rename("adapters/b", "adapters/x")(root)
        listing(root, "adapters/x", "teams/x/adapters/c")

    where = change(root, both)
    found = {a.path: a for a in select(where, Overrides())}
    assert found.keys() == {"adapters/a", "adapters/x"}
    assert removed(where, found["adapters/a"])
    # Attack: what moved is another adapter by now, and could be the one that seems to be gone.
    adapter(root, "adapters/x", "weights of adapters/a, worse")
    git(root, "add", ".")
    git(root, "commit", "-q", "--amend", "-m", "moved and retrained")
    where = sides(where.base, GitTree(root, git(root, "rev-parse", "HEAD")))
    gone = next(a for a in select(where, Overrides()) if a.path == "adapters/a")
    assert not removed(where, gone)


@pytest.mark.parametrize("path", ["users.safetensors", "adapters/step-2", "m/experts/d", "linked"])
def test_attack_what_is_only_unlisted_is_not_taken_for_removed(root: Path, path: str) -> None:
    """Banks, and adapters that a search passes over, are still there when no config lists them."""

    def place(content: str) -> None:
        if path.endswith(".safetensors"):
            write(root, path, content)
        else:
            adapter(root, path, content)

    git(root, "checkout", "-q", "-b", "listed")
    place("good")
    write(root, "m/mole_config.json", "{}")
    listing(root, "adapters/a", path)
    commit(root, "listed")

    def edit(root: Path) -> None:
        listing(root, "adapters/a")
        if path == "linked":
            delete(path)(root)
            (root / path).symlink_to("adapters/a")
        else:
            place("worse")

    where = change(root, edit)
    (found,) = select(where, Overrides())
    assert found.path == path
    assert not removed(where, found)


def linked(root: Path) -> None:
    """The base has its adapters behind a link to where a search passes over them."""
    rename("adapters", "store/adapters")(root)
    (root / "adapters").symlink_to("store/adapters")
    commit(root, "linked")


def test_a_link_on_the_base_ends_no_gate_but_that_of_what_lies_behind_it(root: Path) -> None:
    linked(root)
    where = change(root, retrain("teams/x/adapters/c"))
    found = select(where, Overrides())
    assert paths(found) == ["adapters/a", "adapters/b", "teams/x/adapters/c"]
    refuse_stale(where, found[2])
    with pytest.raises(InputError, match="adapters: is a symbolic link"):
        refuse_stale(where, found[0])


def test_a_link_that_gives_way_to_the_folder_itself_is_no_longer_in_the_way(root: Path) -> None:
    linked(root)

    def edit(root: Path) -> None:
        (root / "adapters").unlink()
        rename("store/adapters", "adapters")(root)

    where = change(root, edit)
    found = select(where, Overrides())
    assert paths(found) == ["adapters/a", "adapters/b"]
    for entry in found:
        refuse_stale(where, entry)


def test_a_model_of_the_hub_may_be_called_as_a_link_or_submodule_is(root: Path) -> None:
    """`org/base` is not in the link `org`."""
    write(root, "soup.yaml", "base: org/base\ndata: {train: org/data}\n")
    (root / "org").symlink_to("evals")
    commit(root, "of the hub")
    assert select(change(root, lambda r: write(r, "README.md", "x")), Overrides()) == ()


@pytest.mark.parametrize("by", ["link", "submodule"])
def test_attack_one_that_a_checkout_reaches_through_a_link_is_not_taken_for_removed(
    root: Path, by: str
) -> None:
    """A link in the place of a folder above: no commit holds the adapter, and every checkout does,
    with the weights of a folder that a search passes over."""

    def edit(root: Path) -> None:
        rename("adapters", ".store/adapters")(root)
        adapter(root, ".store/adapters/a", "worse")
        listing(root, "teams/x/adapters/c")
        if by == "link":
            (root / "adapters").symlink_to(".store/adapters")
        else:
            git(root, "add", "-A")
            (root / "adapters").mkdir()
            git(root / "adapters", "init", "-q")
            git(root / "adapters", "commit", "-q", "--allow-empty", "-m", "theirs")

    where = change(root, edit)
    found = select(where, Overrides())
    assert paths(found) == ["adapters/a", "adapters/b"]
    for entry in found:
        assert not removed(where, entry)
        with pytest.raises(InputError, match=r"symbolic link|submodule") as caught:
            refuse_stale(where, entry)
        assert caught.value.file == "adapters"
