"""What every command has, and options that Typer has no word for."""

from __future__ import annotations

import ast
import json
import os
import re
import socket
from collections import defaultdict
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from adapterbot.cli import app
from adapterbot.cli.options import OnCluster, Ray
from adapterbot.commands.announcement import announce
from adapterbot.commands.demo import build_repository, example_directory
from adapterbot.commands.report_files import write
from adapterbot.errors import InputError, OurFailure
from tests import command_line
from tests.example import git
from tests.golden.reports import REPORTS


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", {})
    if not below or command.invoke_without_command:
        yield name, command
    for word, one in below.items():
        yield from commands(one, f"{name} {word}")


COMMANDS = dict(commands(typer.main.get_command(app), "adapterbot"))
OF_OTHERS = {"--lora-modules"}  # of vLLM


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_json_and_shows_an_example(name: str) -> None:
    command = COMMANDS[name]
    assert any("--json" in parameter.opts for parameter in command.params)
    # Of these two, what is typed most is short for the command.
    typed = {
        "adapterbot bisect search": "adapterbot bisect",
        "adapterbot pr write": "adapterbot pr",
    }
    blocks = re.findall(
        r"^```console\n(.*?)\n```$", cleandoc(command.help), re.DOTALL | re.MULTILINE
    )
    examples = [line.strip() for block in blocks for line in block.splitlines()]
    assert any(example.startswith(typed.get(name, name)) for example in examples)
    # Each is a line to copy, not run together with those around it.
    result = CliRunner().invoke(app, [*name.split()[1:], "--help"], env={"COLUMNS": "200"})
    assert set(examples) <= {line.strip() for line in result.output.splitlines()}


def test_what_is_no_number_lies_within_no_range() -> None:
    ranges = [
        (name, parameter)
        for name, command in COMMANDS.items()
        for parameter in command.params
        if type(parameter.type).__name__ == "FloatRange"
    ]
    assert len(ranges) > 4
    for name, parameter in ranges:
        with pytest.raises(typer.BadParameter, match="nan"):
            parameter.process_value(typer.Context(COMMANDS[name]), "nan")


@pytest.mark.parametrize(
    "given",
    [
        "merge -a a -a b -o merged --seed",
        "merge -a a -a b -o merged --strategy svd --rank",
        "bank create users --base base --seed",
        "bank create users --base base --dimension",
        "bank size --dimension 2 --users",
        "bank size --users 2 --dimension",
    ],
)
def test_a_number_that_no_record_can_hold_is_refused_before_the_work(given: str) -> None:
    result = CliRunner().invoke(app, [*given.split(), str(10**20), "--json"])
    assert result.exit_code == 2, result.exception
    assert json.loads(result.stdout)["error"]["field"] == given.rsplit(maxsplit=1)[-1]


def ours(code: re.Match[str]) -> str:
    """What is quoted as code, unless it is of another program's command line."""
    return code[0] if code[0].startswith(("`adapterbot", "`--")) else ""


def advice() -> Iterator[tuple[str, str]]:
    """Every `fix=` of an error, as its literal parts, with where it is written."""
    for path in Path(__file__).parents[2].glob("adapterbot/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "fix":
                parts = [n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant)]
                yield f"{path}:{node.value.lineno}", " ".join(map(str, parts))


def test_an_error_advises_no_option_that_there_is_not() -> None:
    known = {"--help", *OF_OTHERS}
    for command in COMMANDS.values():
        for parameter in command.params:
            known.update(parameter.opts, parameter.secondary_opts)
    named = {
        (place, option)
        for place, fix in advice()
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", re.sub("`[^`]*`", ours, fix))
    }
    assert len(named) > 50
    assert {(place, option) for place, option in named if option not in known} == set()


def test_a_variable_of_the_environment_sets_one_option_everywhere() -> None:
    options = defaultdict(set)
    for command in COMMANDS.values():
        for parameter in command.params:
            if parameter.envvar:
                options[parameter.envvar].add(parameter.name)
    assert {name: found for name, found in options.items() if len(found) > 1} == {}


def echo(
    words: Annotated[list[str], typer.Argument()],
    ray: Ray = None,
    device: Annotated[str | None, typer.Option()] = None,
) -> None:
    typer.echo(f"{words} {ray} {device}")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a"], "['a'] None None"),
        (["a", "--ray"], "['a'] local None"),
        (["--ray", "--device", "cpu", "a"], "['a'] local cpu"),
        (["--ray", "auto", "a"], "['a'] auto None"),
        (["--ray=ray://h:1", "a"], "['a'] ray://h:1 None"),
        (["--ray", "--", "a", "--ray"], "['a', '--ray'] local None"),
    ],
)
def test_ray_without_a_value_is_this_machine(given: list[str], said: str) -> None:
    app = typer.Typer()
    app.command(cls=OnCluster)(echo)
    assert CliRunner().invoke(app, given).output == f"{said}\n"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--expression", "a + b"], "--expression: is what the search is for (say --strategy task"),
        (["-w", "1", "-w", "2"], "--weight: is what the search is for (say --strategy linear)"),
        ([], "--eval: is missing (name the suite to search with, or say --strategy linear)"),
    ],
)
def test_a_merge_without_a_suite_names_the_strategy_that_needs_none(
    given: list[str], says: str
) -> None:
    with pytest.raises(InputError) as caught:
        CliRunner().invoke(
            app, ["merge", "-a", "a", "-a", "b", "-o", "merged", *given], catch_exceptions=False
        )
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (["--eval", "suite.yaml"], "--eval"),
        (["--resume"], "--resume"),
        (["--no-race"], "--race"),
        (["--budget", "1h"], "--budget"),
        (["--density", "0.5"], "--density"),
        (["--seed", "1"], "--seed"),
        (["--device", "cpu"], "--device"),
        (["--ray"], "--ray"),
        (["--weight", "1", "--weight", "0", "--expression", "a"], "--expression"),
    ],
)
def test_a_merge_by_hand_ignores_no_option(given: list[str], field: str) -> None:
    words = ["merge", "--strategy", "linear", "-a", "a", "-a", "b", "-o", "merged", *given]
    with pytest.raises(InputError) as caught:
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert caught.value.field == field


@pytest.mark.parametrize("given", [["--timeout", "5"], ["--retries", "0"], ["--lower-is-better"]])
def test_a_bisect_by_suite_ignores_no_option_of_a_command(given: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        CliRunner().invoke(app, ["bisect", "checkpoints/*", *given], catch_exceptions=False)
    assert (caught.value.field, caught.value.message) == (
        given[0],
        "applies to --eval-command only",
    )


def test_serve_says_before_it_loads_a_model_that_nothing_can_listen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = ["serve", "--base", "./none", "--bank", "none", "--port", port]
        with pytest.raises(InputError) as caught:
            CliRunner().invoke(app, words, catch_exceptions=False)
    assert caught.value.field == "--port"
    assert "Address already in use" in caught.value.message


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["history", "--limit", "1", "--json"], "--limit"),
        (["scan", "--json"], "adapter"),
        (["merge", "--json", "-a", "x", "-o", "y", "--strategy", "none"], "--strategy"),
        (["bank", "size", "--json"], "--users"),
        (["bisect", "x", "y", "--jobs", "0", "--json"], "--jobs"),
        (["lock", "check", "--json", "--nope"], None),
        (["nope", "--json"], None),
    ],
)
def test_what_a_command_does_not_take_is_json_where_json_was_asked_for(
    words: list[str], field: str | None
) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    error = json.loads(done.stdout)["error"]
    assert (error["kind"], error["field"]) == ("bad_input", field)
    assert error["message"]
    assert error["message"] in " ".join(done.stderr.replace("│", "").split())


@pytest.mark.parametrize(
    ("words", "variable"),
    [
        (["gate"], {"ADAPTERBOT_LOG_FORMAT": "xml"}),
        (["gate"], {"ADAPTERBOT_CHECK": "xml"}),
        (["history", "--limit", "xml"], {}),
    ],
)
def test_on_a_runner_what_a_command_does_not_take_is_a_line_and_a_note(
    words: list[str], variable: dict[str, str], tmp_path: Path
) -> None:
    summary = tmp_path / "summary"
    environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary), **variable}
    done = CliRunner().invoke(app, words, env=environment)
    assert done.exit_code == 2
    error, note = done.stderr.splitlines()
    assert error.startswith("error: --")
    assert note.startswith("::error title=adapterbot::--")
    assert "xml" in error
    assert "adapterbot stopped" in summary.read_text()


@pytest.mark.parametrize(
    ("place", "says"),
    [("full", "is not empty"), ("file", "cannot be made"), ("file/below", "cannot be made")],
)
def test_the_demo_takes_a_new_folder_only(place: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "full" / "x").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=says):
        CliRunner().invoke(app, ["demo", str(tmp_path / place)], catch_exceptions=False)


def test_a_summary_that_cannot_be_written_is_a_line_and_takes_no_outputs_along(
    tmp_path: Path,
) -> None:
    """It was a traceback, and the steps that follow had no verdict."""
    runner = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path)}
    done = command_line.run("lock", "show", cwd=tmp_path, env={**os.environ, **runner})
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 2), done.stderr
    outputs = tmp_path / "outputs"
    written = write(REPORTS["regressed"](), tmp_path / "report")
    with pytest.raises(OurFailure, match="cannot write: Is a directory"):
        announce(written, {}, {**runner, "GITHUB_OUTPUT": str(outputs)})
    assert "regressed" in outputs.read_text()


def test_the_demo_commits_in_its_own_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started by a hook of Git's, it wrote its commits into the repository of the hook."""
    git(tmp_path, "init", "-q", "theirs")
    (tmp_path / "own").mkdir()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "theirs" / ".git"))
    build_repository(example_directory(), tmp_path / "own")
    for folder, branches in (("own", 2), ("theirs", 0)):
        monkeypatch.setenv("GIT_DIR", str(tmp_path / folder / ".git"))
        assert len(git(tmp_path, "branch").splitlines()) == branches
