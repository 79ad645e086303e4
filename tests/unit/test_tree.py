"""Trees: the working copy and a commit read alike, and neither can be led outside."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from adapterbot.errors import InputError, OurFailure
from adapterbot.files.paths import join, normalise
from adapterbot.files.tree import Tree, WorkTree, lfs_oid
from adapterbot.git.blobs import blob
from adapterbot.git.checkout import repository_root
from adapterbot.git.commits import resolve_commit
from adapterbot.git.tree import GitTree
from tests.example import commit, git

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 5\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "ü file.txt").write_bytes(b"inside\r\n")
    (root / "top.txt").write_bytes(b"top")
    git(root.parent, "init", "-q", "-b", "main", str(root))
    commit(root, "one")
    return root


@pytest.fixture(params=["working tree", "commit"])
def tree(request: pytest.FixtureRequest, repository: Path) -> Tree:
    if request.param == "commit":
        return GitTree(repository, resolve_commit(repository, "HEAD"))
    return WorkTree(repository)


def test_both_trees_read_the_same(tree: Tree) -> None:
    assert tree.files() == ("a/b/ü file.txt", "top.txt")
    assert tree.files("a") == ("a/b/ü file.txt",)
    assert tree.files("top.txt") == ("top.txt",)
    assert [tree.has(path) for path in ("a", "./top.txt", "nothing")] == [True, True, False]
    assert tree.read("a/b/ü file.txt") == b"inside\r\n"
    assert tree.sha256("top.txt") == hashlib.sha256(b"top").hexdigest()
    assert (tree.on_disk("a") / "b" / "ü file.txt").read_bytes() == b"inside\r\n"
    assert tree.on_disk("top.txt").read_bytes() == b"top"


def test_a_search_passes_over_hidden_and_installed_files(repository: Path) -> None:
    for folder in (".venv", "node_modules", "a/.hidden"):
        (repository / folder).mkdir()
        (repository / folder / "adapter_config.json").touch()
    assert WorkTree(repository).survey() == ("a/b/ü file.txt", "top.txt")


@pytest.mark.parametrize("path", ["nothing", "a/nothing"])
def test_a_missing_file_is_named(tree: Tree, path: str) -> None:
    for call in (tree.read, tree.on_disk, tree.sha256):
        with pytest.raises(InputError, match="does not exist"):
            call(path)


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "/etc/passwd", "a\nb", "a\0b"])
def test_no_path_leaves_the_tree(tree: Tree, path: str) -> None:
    # The attack: a config field that names a file of the runner.
    with pytest.raises(InputError):
        tree.read(path)


def test_a_large_file_is_not_read(tree: Tree) -> None:
    with pytest.raises(InputError, match="3 bytes, more than the 2"):
        tree.read("top.txt", limit=2)


def test_symbolic_links_are_refused(repository: Path) -> None:
    # The attack: a link in the pull request that points at the runner's credentials.
    secret = repository.parent / "secret"
    secret.write_text("token")
    (repository / "link.txt").symlink_to(secret)
    (repository / "dir").symlink_to(repository.parent)
    commit(repository, "links")
    for found in (WorkTree(repository), GitTree(repository, resolve_commit(repository, "HEAD"))):
        for path in ("link.txt", "dir"):
            with pytest.raises(InputError, match="symbolic link"):
                found.read(path)
        with pytest.raises(InputError, match="symbolic link"):
            found.files()
        # A link that nobody asks for is none of our business.
        assert found.survey() == ("a/b/ü file.txt", "top.txt")
    with pytest.raises(InputError, match="symbolic link"):
        WorkTree(repository).read("dir/secret")


def test_a_submodule_is_refused(repository: Path) -> None:
    head = resolve_commit(repository, "HEAD")
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{head},sub")
    git(repository, "commit", "-qm", "sub")
    with pytest.raises(InputError, match="submodule"):
        GitTree(repository, resolve_commit(repository, "HEAD")).read("sub")


def test_lfs_pointers_are_recognised_and_followed_by_digest(repository: Path) -> None:
    content = b"heavy"
    oid = hashlib.sha256(content).hexdigest()
    (repository / "w.safetensors").write_text(POINTER.format(oid=oid))
    tree = GitTree(repository, commit(repository, "pointer"))
    work = WorkTree(repository)

    assert work.sha256("w.safetensors") == tree.sha256("w.safetensors") == oid
    with pytest.raises(InputError, match="Git LFS pointer") as caught:
        tree.read("w.safetensors")
    assert "git lfs fetch" in (caught.value.fix or "")
    for call in (work.read, work.on_disk):
        with pytest.raises(InputError, match="Git LFS pointer"):
            call("w.safetensors")

    # Another file under the same name must not pass for the object.
    (repository / "w.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match="Git LFS pointer"):
        tree.read("w.safetensors")
    (repository / "w.safetensors").write_bytes(content)
    assert tree.read("w.safetensors") == content
    assert tree.on_disk("w.safetensors").read_bytes() == content
    with pytest.raises(InputError, match="more than the"):
        tree.read("w.safetensors", limit=2)

    (repository / "w.safetensors").unlink()
    store = repository / ".git" / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
    store.parent.mkdir(parents=True, exist_ok=True)
    store.write_bytes(content)
    assert tree.read("w.safetensors") == content


def test_an_oid_must_be_one() -> None:
    assert lfs_oid(POINTER.format(oid="a" * 64).encode()) == "a" * 64
    assert lfs_oid(POINTER.format(oid="A" * 64).encode()) is None
    assert lfs_oid(b"version https://git-lfs") is None


def test_a_file_that_changes_while_it_is_hashed_is_an_error(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import adapterbot.files.tree as module

    def hash_and_change(path: Path) -> str:
        path.write_bytes(b"different now")
        return "0" * 64

    monkeypatch.setattr(module, "file_sha256", hash_and_change)
    with pytest.raises(InputError, match="changed while"):
        WorkTree(repository).sha256("top.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_bad_input(repository: Path) -> None:
    (repository / "top.txt").chmod(0)
    for call in (WorkTree(repository).read, WorkTree(repository).sha256):
        with pytest.raises(InputError, match="cannot be read"):
            call("top.txt")


@pytest.mark.parametrize("ref", ["", "--help", "nowhere", "f" * 40])
def test_a_ref_that_is_none(repository: Path, ref: str) -> None:
    # A ref that begins with "-" would be an option of git.
    with pytest.raises(InputError):
        resolve_commit(repository, ref)


def test_a_ref_that_is_mistyped_is_named_with_its_option_and_the_nearest(repository: Path) -> None:
    git(repository, "branch", "-M", "main")
    with pytest.raises(InputError) as caught:
        resolve_commit(repository, "mian", field="--base")
    assert str(caught.value).startswith(
        "--base: 'mian' is not in this checkout; did you mean 'main'? (correct the name, or fetch"
    )


def test_a_branch_in_another_encoding_does_not_hide_what_is_wrong(repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")
    (repository / ".git" / "packed-refs").write_bytes(
        b"%s refs/heads/gr\xfc\xdfe\n" % head.encode()
    )
    with pytest.raises(InputError, match="'mian' is not in this checkout; did you mean 'main'"):
        resolve_commit(repository, "mian")


def test_a_shallow_clone_fetches_the_commit_it_lacks(repository: Path, tmp_path: Path) -> None:
    first = resolve_commit(repository, "HEAD")
    (repository / "top.txt").write_text("two")
    git(repository, "commit", "-qam", "two")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{repository}", str(clone))
    assert resolve_commit(clone, first) == first
    assert GitTree(clone, first).read("top.txt") == b"top"


def test_the_root_is_that_of_the_checkout_around_or_none(tmp_path: Path, repository: Path) -> None:
    with pytest.raises(InputError, match="not inside a Git checkout"):
        repository_root(tmp_path)
    assert repository_root(repository / "a") == repository


def test_paths_are_normalised() -> None:
    assert normalise("./a/./b/../c") == "a/c"
    assert normalise(".") == ""
    assert join("evals", "../data/x.jsonl") == "data/x.jsonl"
    assert join("", "x") == "x"
    with pytest.raises(InputError):
        join("evals", "/etc/passwd")


def test_blobs_come_from_one_process_that_survives_a_wrong_question(repository: Path) -> None:
    """Names that are no blob, one with a newline included, must not shift later answers."""
    names = {
        path: git(repository, "rev-parse", f"HEAD:{path}") for path in ("top.txt", "a/b/ü file.txt")
    }
    wanted = {"top.txt": b"top", "a/b/ü file.txt": b"inside\r\n"}
    tree_id = git(repository, "rev-parse", "HEAD^{tree}")
    for wrong in ("0" * 40, tree_id, f"{names['top.txt']}\n{names['top.txt']}"):
        with suppress(OurFailure):
            blob(repository, wrong)
        for path, object_id in names.items():
            assert blob(repository, object_id) == wanted[path]
    with pytest.raises(OurFailure, match="no blob"):
        blob(repository, tree_id)


def test_a_thousand_files_take_two_processes(tmp_path: Path) -> None:
    root = tmp_path / "many"
    root.mkdir()
    for i in range(1000):
        (root / f"{i}.txt").write_text(f"row {i}\n" * (i % 50))
    git(tmp_path, "init", "-q", "-b", "main", str(root))
    tree = GitTree(root, commit(root, "many"))
    started: list[str] = []
    sys.addaudithook(
        lambda event, arguments: (
            started.append(str(arguments[1]))
            if event == "subprocess.Popen" and str(root) in arguments[1]
            else None
        )
    )
    for name in tree.files():
        assert tree.read(name) == (root / name).read_bytes()
        assert tree.sha256(name) == hashlib.sha256((root / name).read_bytes()).hexdigest()
    assert len(started) == 2, "one for the sizes, one for what is in them"


def test_attack_folders_in_one_another_without_end_do_not_fill_the_memory(
    repository: Path,
) -> None:
    """Ten folders of ten of ten …: ten billion files, in a hundred lines of Git's."""
    blob = git(repository, "rev-parse", "HEAD:top.txt")
    kind, held = "blob", blob
    for _ in range(10):
        mode = "100644" if kind == "blob" else "040000"
        lines = "".join(f"{mode} {kind} {held}\tf{n}\n" for n in range(10))
        held = made(repository, lines.encode(), "mktree")
        kind = "tree"
    commit = git(repository, "commit-tree", "-m", "bomb", held)
    with pytest.raises(InputError, match="holds more files than"):
        GitTree(repository, commit)


@pytest.mark.parametrize("name", ["..", ".", "/etc"])
def test_attack_a_tree_made_by_hand_does_not_climb(repository: Path, name: str) -> None:
    """Git's own commands make no such name, and read it all the same."""

    def tree(kind: str, called: str, held: str) -> str:
        raw = f"{kind} {called}".encode() + b"\0" + bytes.fromhex(held)
        return made(repository, raw, "hash-object", "-t", "tree", "-w", "--literally", "--stdin")

    inside = tree("100644", "file", git(repository, "rev-parse", "HEAD:top.txt"))
    whole = tree("40000", "adapters", tree("40000", name, inside))
    with pytest.raises(InputError, match="holds a name that no checkout can have"):
        GitTree(repository, git(repository, "commit-tree", "-m", "by hand", whole))


def made(repository: Path, given: bytes, *command: str) -> str:
    asked = ["git", "-C", str(repository), *command]
    done = subprocess.run(asked, input=given, capture_output=True, check=True)
    return done.stdout.decode().strip()


def test_attack_an_lfs_object_that_is_too_large_is_not_asked_for(repository: Path) -> None:
    """Its pointer says how large it is, and a disk is full before the object can be measured."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize {10**12}\n"
    (repository / "top.txt").write_text(pointer)
    git(repository, "commit", "-qam", "pointer")
    with pytest.raises(InputError, match="is 1,000,000,000,000 bytes"):
        GitTree(repository, git(repository, "rev-parse", "HEAD")).read("top.txt")
