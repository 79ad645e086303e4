"""From a fresh repository to the first comment: `adapterbot init`, a commit, a pull request."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import command_line, example, git_server
from tests.github_server import GitHubServer
from tests.programs import python

TAKEN = ("base", "adapters/dates", "soup.yaml", "data/train.jsonl")


MINE = "adapters: [{path: adapters/dates, key: mine}]\n"


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """Somebody's repository with an adapter, which nobody gates."""
    place = tmp_path / "repository"
    for name in TAKEN:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        source = example.EXAMPLE / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, place / name)
    example.git(place, "init", "-q", "-b", "main")
    example.git(place, "config", "user.name", "dev")
    example.git(place, "config", "user.email", "dev@example.invalid")
    example.commit(place, "an adapter")
    return place


def changed(place: Path) -> list[str]:
    """What the working tree has that the last commit has not, by name."""
    example.git(place, "add", "--all")
    return example.git(place, "diff", "--cached", "--name-only").splitlines()


def adapterbot(
    place: Path, *arguments: str, expect: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    # The action's tag is looked up on this server, which is a folder without it.
    server = {"GITHUB_SERVER_URL": f"file://{place.parent}"}
    done = command_line.run(*arguments, cwd=place, env={**os.environ, **server, **environment})
    assert done.returncode == expect, done.stderr
    return done


def test_from_nothing_to_the_first_comment(fresh: Path, tmp_path: Path) -> None:
    (fresh / ".gitignore").write_text("*.jsonl\n")
    example.commit(fresh, "rows of results")
    (fresh / "trained.bin").write_text("left by a run, and no business of anybody's")
    # In one of its folders: what is to be run next begins at the root all the same.
    done = adapterbot(fresh / "adapters", "init", "--yes")
    assert "moved out of data/train.jsonl" in done.stderr
    assert "Git ignores evals/held_out.jsonl" in done.stderr
    first, *commands = [line.strip() for line in done.stdout.splitlines()]
    assert first == "cd .."
    for command in commands[:-1]:
        if command.startswith("adapterbot "):
            adapterbot(fresh, *command.split()[1:])
        else:
            subprocess.run(command, shell=True, cwd=fresh, check=True, capture_output=True)
    assert commands[-1] == "adapterbot doctor"
    assert example.git(fresh, "status", "--porcelain").split() == ["??", "trained.bin"]
    held_out = [name for rows in ("evals", "data") for name in (fresh / rows).glob("*.jsonl")]
    assert len(held_out) == 2
    example.git(fresh, "ls-files", "--error-unmatch", *map(str, held_out), "soup.lock.d")
    example.git(fresh, "checkout", "-q", "-b", "retrained")
    shutil.rmtree(fresh / "adapters/dates")
    checkpoint = example.EXAMPLE / "history" / "poisoned" / "checkpoint-0640"
    # With times of its own: Git takes a file of the same size, times and inode for the old one.
    shutil.copytree(checkpoint, fresh / "adapters/dates", copy_function=shutil.copyfile)
    adapterbot(fresh, "lock", "write")
    example.commit(fresh, "retrained")
    with GitHubServer() as server:
        server.add_token("t0ken")
        server.add_pull(example.REPOSITORY, example.NUMBER)
        event = example.pull_request(fresh)
        environment = example.runner_environment(
            tmp_path / "runner", "pull_request", event, server.url
        )
        cache = str(tmp_path / "cache")
        adapterbot(fresh, "gate", expect=3, ADAPTERBOT_CACHE=cache, **environment)
        (comment,) = server.comments(example.REPOSITORY, example.NUMBER)
        assert server.violations == []
    assert comment.body.startswith("<!-- adapterbot:adapters-dates -->\n")
    assert "held_out" in comment.body
    assert "regressed" in comment.body
    assert "us" in comment.body  # the slice that the poisoned feed broke


def test_nothing_is_written_or_replaced_unasked(fresh: Path) -> None:
    diff = adapterbot(fresh, "init", "--dry-run").stdout
    assert "+++ b/adapterbot.yaml" in diff
    assert example.git(fresh, "status", "--porcelain") == ""
    (fresh / "adapterbot.yaml").write_text(MINE)
    document = json.loads(adapterbot(fresh, "init", "--json").stdout)
    assert document["kept"] == ["adapterbot.yaml"]
    assert (fresh / "adapterbot.yaml").read_text() == MINE
    assert {file["path"]: file["action"] for file in document["files"]} == {
        ".github/workflows/adapter-gate.yml": "create",
        "data/train.jsonl": "change",
        "evals/held_out.jsonl": "create",
        "evals/suite.yaml": "create",
    }
    train = [(place / "data/train.jsonl").read_text() for place in (example.EXAMPLE, fresh)]
    assert train[0].count("\n") - train[1].count("\n") == document["held_out"][0]["rows_moved"]


def test_a_new_workflow_costs_neither_the_configuration_nor_rows(fresh: Path) -> None:
    """Who only wants other labels lost the policy, and where the configuration named a suite of
    its own, rows were moved out of the training data for another."""
    adapterbot(fresh, "init", "--yes")
    (fresh / "evals").rename(fresh / "judged")
    (fresh / "adapterbot.yaml").write_text(MINE.replace("}", ", suite: judged/suite.yaml}"))
    example.commit(fresh, "policy")
    adapterbot(fresh, "init", "--force", "--runs-on", "ubuntu-latest")
    assert changed(fresh) == [".github/workflows/adapter-gate.yml"]
    assert "ubuntu-latest" in (fresh / ".github/workflows/adapter-gate.yml").read_text()


def test_git_applies_the_diff_that_a_dry_run_prints(fresh: Path) -> None:
    data = fresh / "data/train.jsonl"
    # What ends a line for Python's `str` and for nobody else, and a last row without an end.
    first, *others = data.read_text("utf-8").splitlines()
    odd = json.dumps({**json.loads(first), "note": "a\u2028b\x85c"}, ensure_ascii=False)
    rows = [odd if at % 40 == 39 else row for at, row in enumerate(others)]
    data.write_text("\n".join(rows), "utf-8")
    example.commit(fresh, "odd rows")
    diff = adapterbot(fresh, "init", "--dry-run").stdout
    subprocess.run(["git", "apply", "-"], cwd=fresh, input=diff.encode(), check=True)
    applied = {name: (fresh / name).read_bytes() for name in changed(fresh)}
    example.git(fresh, "reset", "-q", "--hard")
    example.git(fresh, "clean", "-qfd")
    adapterbot(fresh, "init", "--yes")
    assert {name: (fresh / name).read_bytes() for name in changed(fresh)} == applied


def test_a_gate_by_another_name_is_not_joined_by_a_second(fresh: Path) -> None:
    """Two of them would write over each other's comment and check."""
    own = fresh / ".github" / "workflows" / "judge.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("on: pull_request\njobs: {j: {steps: [{uses: acme/adapter-action@v2}]}}\n")
    done = adapterbot(fresh, "init", "--yes", "--force")
    assert "keep     .github/workflows/judge.yaml" in done.stderr
    assert [path.name for path in own.parent.iterdir()] == ["judge.yaml"]
    assert "acme/adapter-action@v2" in own.read_text()


def test_attack_the_action_of_an_enterprise_is_not_looked_up_on_github(
    fresh: Path, tmp_path: Path
) -> None:
    """There anybody may have taken its name, and a commit is pinned for good."""
    bare = tmp_path / "hub" / "org" / "adapter-action.git"
    bare.mkdir(parents=True)
    example.git(bare, "init", "-q", "--bare", "--template=")
    commit = example.git(fresh, "rev-parse", "HEAD")
    example.git(fresh, "push", "-q", str(bare), f"{commit}:refs/tags/v1")
    with git_server.private(tmp_path / "hub") as url:
        example.git(fresh, "remote", "add", "origin", f"{url}/octo/adapters.git")
        shown = f"Authorization: {git_server.EXPECTED}"  # as its user's credentials are found
        example.git(fresh, "config", f"http.{url}/.extraheader", shown)
        adapterbot(fresh, "init", "--yes", GITHUB_SERVER_URL="")
    text = (fresh / ".github/workflows/adapter-gate.yml").read_text()
    assert f"uses: org/adapter-action@{commit} # v1\n" in text


def test_a_tag_is_pinned_to_the_commit_that_the_server_knows(fresh: Path, tmp_path: Path) -> None:
    action = tmp_path / "org" / "adapter-action"
    action.mkdir(parents=True)
    example.git(action, "init", "-q")
    example.commit(action, "the action")
    example.git(action, "tag", "-a", "v1", "-m", "an annotated tag")
    adapterbot(fresh, "init", "--yes", GITHUB_SERVER_URL=f"file://{tmp_path}")
    text = (fresh / ".github/workflows/adapter-gate.yml").read_text()
    commit = example.git(action, "rev-parse", "HEAD")
    assert f"uses: org/adapter-action@{commit} # v1\n" in text


@pytest.mark.parametrize(("sure", "written"), [("y", True), ("n", False)])
def test_at_a_terminal_it_asks_for_the_runner_and_a_yes(
    fresh: Path, sure: str, written: bool
) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, f"big-gpu\n{sure}\n".encode())
    done = python(
        *("-m", "adapterbot", "init"),
        cwd=fresh,
        env={"GITHUB_SERVER_URL": f"file://{fresh.parent}"},
        stdin=theirs,
    )
    os.close(ours)
    os.close(theirs)
    assert "Write these files?" in done.stderr
    assert done.returncode == (0 if written else 1)
    workflow = fresh / ".github/workflows/adapter-gate.yml"
    assert workflow.exists() is written
    assert not written or "runs-on: big-gpu\n" in workflow.read_text()


def test_where_nothing_can_be_gated_it_says_so(tmp_path: Path) -> None:
    done = adapterbot(tmp_path, "init", "--yes", expect=2)
    assert "error: " in done.stderr
    example.git(tmp_path, "init", "-q")
    done = adapterbot(tmp_path, "init", "--yes", expect=2)
    assert "holds no adapter" in done.stderr
