"""What commands print of strangers' words, read as a runner reads its log; and where they write."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adapterbot import cli
from adapterbot.cli import app
from adapterbot.cli.output import replace_what_stdout_cannot_encode, say
from adapterbot.commands.folders import out_directory
from adapterbot.records import Report
from tests import example
from tests.programs import python
from tests.unit.test_gh_workflow import runner

ATTACKS = ("::set-output name=verdict::passed", "x ##[set-output name=verdict]passed")
GOLDEN = Path(__file__).parent.parent / "golden" / "regressed.json"


def lock(base_model: str) -> str:
    digest = "a" * 64
    parts = dict.fromkeys(("base_model_sha", "dataset_sha", "env_hash"), digest)
    return json.dumps(
        {
            **parts,
            "base_model": base_model,
            "closure_sha": hashlib.sha256((3 * digest).encode()).hexdigest(),
            "created_at": "2026-01-01T00:00:00+00:00",
            "soup_version": "1",
        }
    )


def report(adapter: str) -> str:
    found = Report.model_validate_json(GOLDEN.read_bytes())
    named = tuple(one.model_copy(update={"adapter": adapter}) for one in found.adapters)
    return found.model_copy(update={"adapters": named}).model_dump_json()


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("command", ["lock show", "explain"])
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_attack_what_a_command_prints_commands_no_runner(
    tmp_path: Path, command: str, attack: str, more: list[str]
) -> None:
    file = tmp_path / "file"
    file.write_text(lock(attack) if command == "lock show" else report(attack))
    done = CliRunner().invoke(app, [*command.split(), str(file), *more])
    assert done.exit_code == 0, done.exception
    assert "set-output" in done.output
    assert runner(done.output) == []


def test_who_adds_everything_to_git_adds_no_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example.git(tmp_path, "init", "-q")
    for _ in range(2):
        (out_directory(None, {}) / "report.json").write_text("{}")
        assert example.git(tmp_path, "status", "--porcelain", "--untracked-files=all") == ""
    assert out_directory(None, {"RUNNER_TEMP": str(tmp_path)}) == tmp_path / "adapterbot"
    assert not (tmp_path / "adapterbot").exists()


def test_a_result_that_a_full_disk_does_not_take_is_a_line_and_our_failure():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [
                sys.executable,
                *["-m", "adapterbot", "bank", "size", "--users", "1", "--dimension", "2"],
            ],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == (
        "error: standard output: could not be written: the disk is full (free some space)\n"
    )


@pytest.mark.parametrize("to", ["/dev/full", "a pipe that nobody reads"])
def test_an_error_as_json_that_nothing_takes_is_our_failure_without_a_traceback(to: str) -> None:
    if to == "/dev/full":
        out = os.open(to, os.O_WRONLY)
    else:
        unread, out = os.pipe()
        os.close(unread)
    done = subprocess.run(
        [sys.executable, "-m", "adapterbot", "bank", "size", "--users", "1", "--json"],
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(out)
    assert done.returncode == 1
    named, *full = done.stderr.splitlines()
    assert named.startswith("error: --dimension: names neither")
    assert len(full) == (to == "/dev/full")


def test_a_machine_with_nowhere_for_temporary_files_is_told_so_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc"])
    with pytest.raises(SystemExit) as ended:
        cli.main(["demo"])
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "error: no temporary file can be written: No usable temporary directory found in "
        "['/proc'] (make room there, or name another folder: TMPDIR)"
    )


def test_a_current_directory_that_was_removed_is_no_matter_of_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit) as ended:
        cli.main(["gate"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == ("error: the current directory: does not exist any more (go to one that does)")


def test_a_log_that_a_full_disk_does_not_take_ends_no_search(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    asked = ("bisect", "a", "b", "--eval-command", "test {ckpt} = a", "--outcomes", "exact")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "adapterbot", *asked],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            check=False,
        )
    assert done.returncode == 3
    assert "BROKEN_AT b" in done.stdout


_WITHOUT_ROOM = """
import resource, sys
from adapterbot.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
main(["demo", sys.argv[1]])
"""


def test_a_demo_for_which_there_is_no_room_says_so_in_a_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_ROOM, str(tmp_path / "demo")],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    _, line = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path / 'demo'}: could not be written: ")


@pytest.mark.parametrize("command", ["scan", "lock show", "bank show", "env lock --from"])
def test_a_path_that_may_not_be_looked_at_is_refused_in_one_line(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    private = tmp_path / "private"
    looked_at = os.stat

    def refused(path: Any, **given: Any) -> os.stat_result:
        if str(path).startswith(str(private)):
            raise PermissionError(13, "Permission denied", str(path))
        return looked_at(path, **given)

    monkeypatch.setattr(os, "stat", refused)  # root is refused nothing
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), str(private / "file")])
    assert ended.value.code == 2
    assert re.fullmatch(
        rf"error: {private}/file\S*: cannot be used: Permission denied \(name a path that you may "
        r"read and write\)\n",
        capsys.readouterr().err,
    )


@pytest.mark.parametrize("encoding", ["iso8859-1", "cp1252", "utf-8"])
def test_a_terminal_of_another_encoding_loses_no_sign_of_a_figure(encoding: str) -> None:
    def printed(*more: str) -> bytes:
        return subprocess.run(
            [sys.executable, "-m", "adapterbot", "explain", str(GOLDEN), *more],
            env={**os.environ, "PYTHONIOENCODING": encoding},
            capture_output=True,
            check=True,
        ).stdout

    text = printed().decode(encoding)
    (change,) = re.findall(r"dates: regressed\n.*samples: (\S+)\spts", text)
    assert float(change.replace("−", "-")) < 0
    assert ("−" in change) == (encoding == "utf-8")
    said = json.loads(printed("--json").decode())
    assert "−" in json.dumps(said, ensure_ascii=False)


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_an_argument_that_is_no_text_is_refused_by_name(more: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "adapterbot", "bank", "list", "users", "--prefix", b"\xe4", *more],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: '\\udce4': is no text in this locale")
    assert not more or "locale" in json.loads(done.stdout)["error"]["message"]


def test_all_that_is_printed_goes_through_what_makes_it_harmless() -> None:
    """A name that is new to a command must not be new to this rule."""
    raw = []
    for path in sorted((Path(cli.__file__).parent).glob("*.py")):
        for text in path.read_text().splitlines():
            if re.search(
                r"(?<![\w.])print\(|\b(echo|secho|std(out|err)\.(buffer\.)?write)\(", text
            ):
                raw.append(f"{path.name}: {text.strip()}")
    allowed = (
        "output.py: ",
        "app.py: ",
        "init.py: sys.stdout.write(",
        "lock.py: typer.echo(annot",
        "pr.py: sys.stdout.buffer",
    )
    assert [one for one in raw if not one.startswith(allowed)] == []


HOSTILE = ("x\x1b[31mred", "a\n::error::b", "\u202eevil", "::error::x", "x ##[error]y")


def test_attack_a_user_of_a_bank_is_a_line_of_text(tmp_path: Path) -> None:
    vectors = tmp_path / "v.jsonl"
    rows = (json.dumps({"user": user, "vector": [1.0, 2.0]}) for user in HOSTILE)
    vectors.write_text("".join(f"{row}\n" for row in rows))
    place = str(tmp_path / "users")
    for words in (
        ["create", place, "--base", "any", "--dimension", "2"],
        ["add", place, str(vectors)],
        ["list", place],
        *(["show", place, user] for user in HOSTILE),
    ):
        done = CliRunner().invoke(app, ["bank", *words])
        assert done.exit_code == 0, done.output
        assert "\x1b" not in done.output
        assert "\u202e" not in done.output
        assert runner(done.output) == []
        if words[0] == "list":
            assert len(done.output.splitlines()) == len(HOSTILE)


def test_attack_what_is_said_on_the_way_commands_no_runner(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say("create   a\x1b[2J::error::x\n::set-output name=verdict::passed")
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert runner(said) == []
    assert len(said.splitlines()) == 2


def test_a_wrong_input_of_the_action_is_one_line_that_names_the_command(tmp_path: Path) -> None:
    """What began the process there is a file of the action's."""
    begun = python(
        "-I",
        Path(__file__).parents[2] / "entrypoint.py",
        cwd=tmp_path,
        env={"GITHUB_ACTIONS": "true", "ADAPTERBOT_COMMENT": "edit"},
    )
    assert begun.returncode == 2
    line = begun.stderr.splitlines()[0]
    assert line.startswith("error: --comment: ")
    assert line.endswith("'off' (see adapterbot gate --help)")


def test_a_trend_is_read_in_ascii_too(monkeypatch: pytest.MonkeyPatch) -> None:
    page = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", page)
    replace_what_stdout_cannot_encode()
    print("▁▄·█", end="", file=page, flush=True)
    page.seek(0)
    assert page.read() == "14.8"
