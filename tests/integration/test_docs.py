"""README and docs do what they say: every block of code is run, parsed or validated.

By the word after the fence: `yaml` and `json` are validated as what they are, `python` is run,
`text`, `markdown` and `diff` are output. A `console` block is run when `<!-- run -->` stands before
it, in a folder that all blocks of its page share; where it cannot be (a cluster, GitHub, an hour),
`<!-- shown: why -->` says so, and its commands are still parsed by the command line's own parser.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
import typer
import yaml

from adapterbot import config
from adapterbot.cli import app
from adapterbot.eval.suite_file import SuiteSpec
from adapterbot.files.tree import WorkTree
from adapterbot.files.yamlfile import YamlFile, validate
from adapterbot.lock import load_training
from tests import command_line, example

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OUTPUT = {"text", "markdown", "diff", "mermaid"}
_MARK = r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?"
_BLOCK = re.compile(_MARK + r"^```(?P<kind>\S*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_EXIT = re.compile(r"# exit code (\d)")
_COMMENT = re.compile(r"\s+# .*")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    kind: str
    mark: str
    body: str

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def runs(self) -> bool:
        return self.mark == "run" or self.mark.startswith("run:")

    @property
    def commands(self) -> list[str]:
        joined = self.body.replace("\\\n", " ")
        return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield Block(page, line, match["kind"], match["mark"] or "", match["body"])


BLOCKS = list(blocks())
COMMAND = typer.main.get_command(app)


def of(*kinds: str) -> list[Any]:
    return [pytest.param(block, id=block.name) for block in BLOCKS if block.kind in kinds]


def test_every_block_is_of_a_kind_that_is_checked_here() -> None:
    checked = {"console", "yaml", "json", "python"} | OUTPUT
    assert [block.name for block in BLOCKS if block.kind not in checked] == []
    unmarked = [
        block.name
        for block in BLOCKS
        if block.kind in ("console", "python")
        and not block.runs
        and not block.mark.startswith("shown: ")
    ]
    assert unmarked == [], "write <!-- run --> or <!-- shown: why it cannot be run -->"


# ---------------------------------------------------------------- commands


@pytest.mark.parametrize(
    "block",
    of("console") + [each for each in of("text") if each.values[0].commands],  # help's examples
)
def test_commands_are_such_as_there_are(block: Block) -> None:
    assert block.commands
    for command in block.commands:
        words = shlex.split(_COMMENT.sub("", command))
        if words[0] == "adapterbot":
            _parse(COMMAND, words[1:])
        elif words[0] == "make":
            targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert set(words[1:]) <= set(targets)


def _parse(command: Any, words: list[str]) -> None:
    """As the command line would, to the end of the arguments; nothing is run."""
    with command.make_context(command.name or "adapterbot", list(words)) as context:
        if hasattr(command, "commands"):
            rest = [*context._protected_args, *context.args]
            if not rest and command.invoke_without_command:
                return
            _, inner, rest = command.resolve_command(context, rest)
            _parse(inner, rest)


@pytest.mark.parametrize(
    "page", sorted({block.page for block in BLOCKS if block.kind == "console" and block.runs})
)
def test_commands_do_what_the_page_says(page: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    run = [
        block for block in BLOCKS if block.page == page and block.kind == "console" and block.runs
    ]
    if run[0].mark == "run: in a repository":
        example.build(place)
    else:
        place.mkdir()
    program = tmp_path / "bin" / "adapterbot"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        f"from tests import command_line\ncommand_line.hand_over({str(command_line.address())!r})\n"
    )
    program.chmod(0o755)
    # One shell for the page, since it says `cd` once. Each command's code is held against the page.
    script = ["set -u"]
    for block in run:
        for command in block.commands:
            code = int(match[1]) if (match := _EXIT.search(command)) else 0
            script += [
                f"echo '+ {block.name}' {shlex.quote(command)} >&2",
                command,
                f'code=$?; [ "$code" -eq {code} ] || {{ echo "exit code $code" >&2; exit 1; }}',
            ]
    environment = {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "ADAPTERBOT_CACHE": str(tmp_path / "cache"),
        "GITHUB_SERVER_URL": f"file://{tmp_path}",
        "GITHUB_TOKEN": "",
    }
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]


# ---------------------------------------------------------------- files and code


def _workflow(content: dict[str, Any]) -> None:
    """A whole workflow is held against GitHub's schema by `make lint`, where it lies as a file."""
    if "jobs" in content:
        assert "permissions" in content
        assert len(content.keys() - {"jobs", "permissions"}) >= 2, "a name, and `on`"
        return
    for step in content["steps"]:
        assert {"run", "uses"} & set(step)
        for line in str(step.get("run", "")).splitlines():
            if line.startswith("adapterbot "):
                _parse(COMMAND, shlex.split(line)[1:])


def _config(content: dict[str, Any]) -> None:
    config.load(yaml.safe_dump(content).encode(), "adapterbot.yaml")


def _suite(content: dict[str, Any]) -> None:
    validate(SuiteSpec, YamlFile("suite.yaml", content, {}), content)


KINDS: dict[str, Callable[[dict[str, Any]], None]] = {
    "adapters": _config,
    "tasks": _suite,
    "jobs": _workflow,
    "steps": _workflow,
}


@pytest.mark.parametrize("block", of("yaml"))
def test_yaml_is_what_it_says_it_is(block: Block, tmp_path: Path) -> None:
    content = yaml.safe_load(block.body)
    if isinstance(content, list):
        content = {"steps": content}
    if "base" in content:
        (tmp_path / "soup.yaml").write_text(block.body)
        load_training(WorkTree(tmp_path), "soup.yaml")
        return
    (kind,) = set(content) & set(KINDS)
    KINDS[kind](content)


@pytest.mark.parametrize(("heading", "schema"), [("adapters", "config"), ("tasks", "suite")])
def test_yaml_is_valid_by_the_schema_that_an_editor_checks_it_with(
    heading: str, schema: str
) -> None:
    published = json.loads((ROOT / "docs" / "schemas" / f"{schema}-v1.schema.json").read_text())
    contents = [yaml.safe_load(block.body) for block in BLOCKS if block.kind == "yaml"]
    found = [content for content in contents if heading in content]
    assert found
    for content in found:
        jsonschema.Draft202012Validator(published).validate(content)


@pytest.mark.parametrize("block", of("json"))
def test_json_is_json(block: Block) -> None:
    json.loads(block.body)


@pytest.mark.parametrize(
    "page", sorted({block.page for block in BLOCKS if block.kind == "python" and block.runs})
)
def test_python_runs(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The blocks of a page one after the other, in a checkout. They leave the process as it was."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    before = _process()
    names: dict[str, Any] = {}
    for block in BLOCKS:
        if block.page == page and block.kind == "python" and block.runs:
            exec(compile(block.body, block.name, "exec"), names)
    assert _process() == before
    assert capsys.readouterr().out == ""


def _process() -> dict[str, Any]:
    """What a library has no business with."""
    return {
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "errors": np.geterr(),
        "logs": (logging.root.level, *logging.root.handlers),
        "signals": [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)],
    }
