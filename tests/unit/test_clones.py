"""What a clone lacks is fetched, on a runner with the job's token, or named with what to do."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from adapterbot.errors import InputError, OurFailure
from adapterbot.git.checkout import repository_root
from adapterbot.git.commits import merge_bases, resolve_commit
from adapterbot.git.tree import GitTree
from tests import git_server
from tests.example import commit, git
from tests.listening import listening
from tests.processes import needs_proc
from tests.programs import python

WEIGHTS = b"weights of the base"
OID = hashlib.sha256(WEIGHTS).hexdigest()
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize {len(WEIGHTS)}\n"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A repository as GitHub keeps it: `main` went on after `branch` had left it."""
    work = tmp_path / "work"
    git(tmp_path, "init", "-q", "-b", "main", str(work))
    for name, branch in (("first", "main"), ("left", "branch"), ("later", "main")):
        if branch != "main":
            git(work, "checkout", "-q", "-b", branch)
        elif name != "first":
            git(work, "checkout", "-q", "main")
        (work / f"{name}.txt").write_text(name)
        commit(work, name)
    place = tmp_path / "served" / "adapters.git"
    git(tmp_path, "clone", "-q", "--bare", str(work), str(place))
    for setting in ("allowAnySHA1InWant", "allowFilter"):
        git(place, "config", f"uploadpack.{setting}", "true")
    return place


@pytest.fixture
def url(bare: Path) -> Iterator[str]:
    with git_server.private(bare.parent) as server:
        yield f"{server}/{bare.name}"


@pytest.fixture
def on_runner(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_SERVER_URL", url.rpartition("/")[0])
    monkeypatch.setenv("GITHUB_TOKEN", git_server.TOKEN)


def checkout(bare: Path, to: Path, ref: str, url: str, *options: str) -> Path:
    """As actions/checkout leaves it with `persist-credentials: false`."""
    git(to.parent, "init", "-q", str(to))
    git(to, "remote", "add", "origin", f"file://{bare}")
    git(to, "fetch", "-q", "--no-tags", *options, "origin", ref)
    git(to, "checkout", "-q", "--force", "FETCH_HEAD")
    git(to, "remote", "set-url", "origin", url)
    return to


@pytest.mark.usefixtures("on_runner")
def test_a_shallow_clone_of_a_private_repository_is_completed(
    bare: Path, url: str, tmp_path: Path
) -> None:
    main, branch = (git(bare, "rev-parse", name) for name in ("main", "branch"))
    clone = checkout(bare, tmp_path / "clone", branch, url, "--depth=1")
    assert resolve_commit(clone, main) == main
    # Else what the base changed since would be taken for undone by the branch.
    assert merge_bases(clone, main, branch) == (git(bare, "merge-base", "main", "branch"),)
    assert git_server.TOKEN not in (clone / ".git" / "config").read_text()


def test_a_shallow_clone_that_cannot_be_completed_says_what_to_do(
    bare: Path, url: str, tmp_path: Path
) -> None:
    main, branch = (git(bare, "rev-parse", name) for name in ("main", "branch"))
    clone = checkout(bare, tmp_path / "clone", branch, f"file://{bare}", "--depth=1")
    resolve_commit(clone, main)
    git(clone, "remote", "set-url", "origin", url)  # without a token
    with pytest.raises(InputError, match=r"is shallow, .*fetch-depth: 0"):
        merge_bases(clone, main, branch)


@pytest.mark.usefixtures("on_runner")
def test_attack_where_a_clone_was_cut_off_hides_no_newer_fork_point(
    bare: Path, url: str, tmp_path: Path
) -> None:
    """A branch that merged the newest base by a longer way than an old one: in a clone of four
    commits' depth it seems to have left long ago, and to have changed nothing since."""
    work = tmp_path / "work"

    def commit(name: str, branch: str = "", start: str = "HEAD") -> str:
        if branch:
            git(work, "checkout", "-q", "-b", branch, start)
        git(work, "commit", "-q", "--allow-empty", "-m", name)
        return git(work, "rev-parse", "HEAD")

    old = commit("old", "base", "main")
    newer = commit("newer")
    commit("a longer way", "long")
    commit("and longer")
    commit("a short way", "head", old)
    git(work, "merge", "-q", "--no-edit", "long")
    head = git(work, "rev-parse", "HEAD")
    git(work, "checkout", "-q", "base")
    tip = commit("tip")
    git(work, "checkout", "-q", "-b", "merged")
    git(work, "merge", "-q", "--no-edit", "--no-ff", "head")
    git(work, "push", "-q", str(bare), "merged")
    clone = checkout(bare, tmp_path / "clone", "merged", url, "--depth=4")
    assert git(clone, "merge-base", tip, head) == old
    assert merge_bases(clone, tip, head) == (newer,)


def test_a_whole_clone_stays_whole(bare: Path, tmp_path: Path) -> None:
    """Somebody's own, which lacks no more than the newest commit."""
    clone, other = tmp_path / "clone", tmp_path / "other"
    for place in (clone, other):
        git(tmp_path, "clone", "-q", str(bare), str(place))
    git(other, "commit", "-q", "--allow-empty", "-m", "new")
    git(other, "push", "-q", "origin", "HEAD:main")
    new = git(other, "rev-parse", "HEAD")
    assert resolve_commit(clone, new) == new
    assert git(clone, "rev-parse", "--is-shallow-repository") == "false"
    assert git(clone, "rev-list", "--count", new) == git(other, "rev-list", "--count", new)


def test_a_branch_that_only_origin_has_goes_by_its_name(bare: Path, tmp_path: Path) -> None:
    """As `main` in a job that checked a pull request out, or in a clone of one branch."""
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "-b", "branch", str(bare), str(clone))
    assert resolve_commit(clone, "main") == git(bare, "rev-parse", "main")
    git(clone, "branch", "main", "branch")
    assert resolve_commit(clone, "main") == git(bare, "rev-parse", "branch"), "one's own goes first"


def test_two_histories_that_never_met_have_no_fork_point(bare: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(bare), str(clone))
    git(clone, "checkout", "-q", "--orphan", "other")
    git(clone, "commit", "-qm", "other")
    assert merge_bases(clone, "origin/main", "other") == ()


@pytest.fixture
def without_files(bare: Path, url: str, tmp_path: Path) -> Path:
    """As actions/checkout leaves it with `filter: blob:none` or `sparse-checkout`."""
    clone = tmp_path / "clone"
    bare_url = f"file://{bare}"
    git(tmp_path, "clone", "-q", "--filter=blob:none", "--no-checkout", bare_url, str(clone))
    git(clone, "remote", "set-url", "origin", url)
    return clone


@pytest.mark.usefixtures("on_runner")
def test_a_clone_without_files_gets_those_that_are_read(without_files: Path) -> None:
    tree = GitTree(without_files, resolve_commit(without_files, "origin/branch"))
    assert tree.read("left.txt") == b"left"
    assert tree.has("first.txt")
    listed = git(without_files, "rev-list", "--objects", "--missing=print", "origin/branch")
    assert listed.count("?") == 1, "first.txt, which nobody read"


def test_a_file_that_no_clone_has_and_nobody_sends_is_named(without_files: Path) -> None:
    tree = GitTree(without_files, resolve_commit(without_files, "origin/branch"))
    with pytest.raises(InputError, match=r"^left\.txt: at .* is left out of this clone.*`filter`"):
        tree.sha256("left.txt")


def test_what_is_said_to_be_run_for_a_missing_file_gets_it(without_files: Path, bare: Path) -> None:
    """`git fetch --refetch` by itself keeps to the clone's filter, and gets nothing."""
    tree = GitTree(without_files, resolve_commit(without_files, "origin/branch"))
    with pytest.raises(InputError) as caught:
        tree.sha256("left.txt")
    _, _, command = (caught.value.fix or "").rpartition(" run `")
    git(without_files, "remote", "set-url", "origin", f"file://{bare}")
    git(without_files, *command.removesuffix("`").split()[1:])
    git(without_files, "remote", "set-url", "origin", "file:///nowhere")
    assert tree.read("left.txt") == b"left"


@pytest.mark.usefixtures("on_runner")
def test_a_clones_own_credentials_are_used_alone(bare: Path, url: str, tmp_path: Path) -> None:
    """GitHub refuses a request that bears two."""
    main, branch = (git(bare, "rev-parse", name) for name in ("main", "branch"))
    clone = checkout(bare, tmp_path / "clone", branch, url, "--depth=1")
    header = f"AUTHORIZATION: {git_server.EXPECTED}"
    git(clone, "config", f"http.{url.rpartition('/')[0]}/.extraheader", header)
    assert resolve_commit(clone, main) == main


@pytest.mark.usefixtures("on_runner")
def test_attack_a_server_that_is_not_githubs_is_not_shown_the_token(
    bare: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as `.lfsconfig` of a pull request may name. This one would take the token."""
    main, branch = (git(bare, "rev-parse", name) for name in ("main", "branch"))
    clone = checkout(bare, tmp_path / "clone", branch, url, "--depth=1")
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
    with pytest.raises(InputError, match="is not in this checkout"):
        resolve_commit(clone, main)


# ---------------------------------------------------------------- Git LFS


FAKE = """#!/bin/sh
# git-lfs smudge, as far as its own store is concerned
git config --get lfs.url > "$LFS_SERVER/asked"
store=$(git rev-parse --git-common-dir)/lfs/objects/{folder}
mkdir -p "$store" && cp "$LFS_SERVER/{oid}" "$store/" || {{ echo "error: 404" >&2; exit 2; }}
"""


@pytest.fixture
def pointer(tmp_path: Path) -> Path:
    """A checkout whose base has weights of which only the pointer is here."""
    root = tmp_path / "checkout"
    git(tmp_path, "init", "-q", "-b", "main", str(root))
    (root / "w.safetensors").write_text(POINTER)
    commit(root, "pointer")
    return root


def test_the_weights_of_the_base_are_fetched_from_lfs(
    pointer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`lfs: true` fetches what the pull request's own commit needs, and nothing of the base's."""
    program = tmp_path / "bin" / "git-lfs"
    program.parent.mkdir()
    program.write_text(FAKE.format(oid=OID, folder=f"{OID[:2]}/{OID[2:4]}"))
    program.chmod(0o755)
    (tmp_path / "server").mkdir()
    tree = GitTree(pointer, resolve_commit(pointer, "HEAD"))
    if shutil.which("git-lfs") is None:
        with pytest.raises(InputError, match=r"'lfs' is not a git command.*\(install git-lfs"):
            tree.read("w.safetensors")
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("LFS_SERVER", str(tmp_path / "server"))
    with pytest.raises(InputError, match=r"object .* is not here: .*404 \(install git-lfs"):
        tree.read("w.safetensors")
    (tmp_path / "server" / OID).write_bytes(WEIGHTS)
    with pytest.raises(InputError, match="is not here"), tree.open("w.safetensors", fetch=False):
        pass
    assert tree.on_disk("w.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("setting", "value", "asked"),
    [
        (None, None, ""),
        (
            "remote.origin.url",
            "https://github.example/o/r",
            "https://github.example/o/r.git/info/lfs",
        ),
        ("remote.origin.url", "git@github.example:o/r.git", "git@github.example:o/r.git"),
        ("remote.origin.lfsurl", "https://lfs.example/r", "https://lfs.example/r"),
        ("lfs.url", "https://lfs.example/r", "https://lfs.example/r"),
    ],
)
def test_a_pull_request_does_not_say_which_server_is_asked(
    pointer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str | None,
    value: str | None,
    asked: str,
) -> None:
    """Stops a `.lfsconfig` by which the runner would ask addresses inside its own network."""
    program = tmp_path / "bin" / "git-lfs"
    program.parent.mkdir()
    program.write_text(FAKE.format(oid=OID, folder=f"{OID[:2]}/{OID[2:4]}"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("LFS_SERVER", str(tmp_path))
    (pointer / ".lfsconfig").write_text("[lfs]\n\turl = http://169.254.169.254/latest\n")
    if setting and value:
        git(pointer, "config", setting, value)
    with pytest.raises(InputError, match="is not here"):
        GitTree(pointer, resolve_commit(pointer, "HEAD")).read("w.safetensors")
    assert (tmp_path / "asked").read_text().strip() == asked


@pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not installed")
def test_the_real_git_lfs_asks_the_remote_whatever_a_pull_request_names(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    with listening() as (evil, heard), listening() as (remote, asked):
        git(tmp_path, "init", "-q", str(clone))
        git(clone, "remote", "add", "origin", f"{remote}/o/r")
        (clone / "w.safetensors").write_text(POINTER)
        (clone / ".lfsconfig").write_text(f"[lfs]\n\turl = {evil}/x\n")
        commit(clone, "pointer")
        with pytest.raises(InputError, match="is not here"):
            GitTree(clone, resolve_commit(clone, "HEAD")).read("w.safetensors")
    assert not heard
    assert asked


@pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not installed")
@pytest.mark.parametrize("left_out", ["by the runner", "by a pull request", "by nobody"])
def test_the_real_git_lfs_fetches_them(
    left_out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where checkouts leave them out: by a setting of the machine, or by a `.lfsconfig`, with
    which a pull request could keep its base from being read."""
    work, bare = tmp_path / "work", tmp_path / "bare.git"
    git(tmp_path, "init", "-q", "-b", "main", str(work))
    git(work, "lfs", "install", "--local")
    git(work, "lfs", "track", "*.safetensors")
    (work / "w.safetensors").write_bytes(WEIGHTS)
    commit(work, "weights")
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(bare))
    git(work, "remote", "add", "origin", f"file://{bare}")
    git(work, "push", "-q", "origin", "main")
    clone = tmp_path / "clone"
    environment = {**os.environ, "GIT_LFS_SKIP_SMUDGE": "1"}
    command = ["git", "clone", "-q", f"file://{bare}", str(clone)]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    assert (clone / "w.safetensors").read_text() == POINTER
    if left_out == "by the runner":
        monkeypatch.setenv("GIT_LFS_SKIP_SMUDGE", "1")
    elif left_out == "by a pull request":
        (clone / ".lfsconfig").write_text("[lfs]\n\tfetchinclude = x\n\tfetchexclude = *\n")
    tree = GitTree(clone, resolve_commit(clone, "HEAD"))
    assert tree.read("w.safetensors") == WEIGHTS


# ---------------------------------------------------------------- the machine


def test_a_clone_of_another_user_is_named_with_the_command(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose user is not the runner's. Git says so in four lines, of which the
    last is no reason."""
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(bare), str(clone))
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(InputError, match=r"git config --global --add safe\.directory"):
        repository_root(clone)


def test_what_a_killed_job_leaves_is_the_runners_to_remove(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere each would leave the base model's gigabytes for good."""
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(bare), str(clone))
    (tmp_path / "runner").mkdir()
    monkeypatch.setenv("RUNNER_TEMP", str(tmp_path / "runner"))
    tree = GitTree(clone, resolve_commit(clone, "HEAD"))
    assert tree.on_disk("first.txt").is_relative_to(tmp_path / "runner")


def test_what_could_not_be_copied_whole_is_not_taken_for_whole_later(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk the next adapter would be judged under half a base model."""
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(bare), str(clone))
    tree = GitTree(clone, resolve_commit(clone, "HEAD"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", full)
        with pytest.raises(OurFailure, match=r"No space left on device \(free some disk space"):
            tree.on_disk("first.txt")
    assert tree.on_disk("first.txt").read_text() == "first"


def test_an_interrupted_command_that_ends_by_itself_is_still_an_interrupt() -> None:
    """Ctrl-C has Python wait for a moment, in which Git may end."""
    code = "import os, signal, threading; from adapterbot.git.program import finished; "
    code += "threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start(); "
    code += "finished(['sleep', '0.3'], os.environ, seconds=20.0)"
    done = python("-c", code, start_new_session=True)
    assert done.stderr.endswith("KeyboardInterrupt\n"), done.stderr


@needs_proc
@pytest.mark.parametrize("command", ["fetch", "lfs"])
def test_a_command_that_takes_too_long_leaves_no_helper_behind(
    bare: Path, tmp_path: Path, command: str
) -> None:
    """Git killed alone leaves `git-remote-http`, and git-lfs, waiting for the server for ever."""
    if command == "lfs" and shutil.which("git-lfs") is None:
        pytest.skip("no git-lfs here")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(bare), str(clone))
    (clone / "a.bin").write_text(POINTER)
    (clone / ".gitattributes").write_text("*.bin filter=lfs\n")
    for setting in ("process=", "clean=cat", "required=false"):
        git(clone, "config", *f"filter.lfs.{setting}".split("=", 1))
    commit(clone, "weights")
    code = "import sys, pathlib; from adapterbot.git import program as g; "
    code += "g._NETWORK_SECONDS = 2.0; g.ask_remote(pathlib.Path(sys.argv[1]), *sys.argv[2:])"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mark = f"unanswered-{silent.getsockname()[1]}"
        git(clone, "remote", "add", mark, f"http://127.0.0.1:{silent.getsockname()[1]}/x.git")
        asked = ("fetch", mark) if command == "fetch" else ("lfs", "fetch", mark, "HEAD")
        # In a session of its own: at a terminal, ssh must be able to ask for a passphrase.
        done = python("-c", code, clone, *asked, start_new_session=True)
        assert "did not end within 2 s" in done.stderr
        until = time.monotonic() + 10
        while (left := [one for one in running() if mark in one]) and time.monotonic() < until:
            time.sleep(0.05)  # what is killed is not gone at once
        assert left == []


def running() -> list[str]:
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(place.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found
