"""action.yml, the workflows and the command line cannot drift apart, nor grow an unsafe habit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from adapterbot.cli import app
from adapterbot.records import LockStatus, Outcome

ROOT = Path(__file__).resolve().parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS = {step.get("id", step["name"]): step for step in ACTION["runs"]["steps"]}
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.yml"))
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
# What the action is asked to do, as opposed to what it passes on to the command line.
WITH_TOKEN = ["run", "Say so if it was killed"]
OF_THE_ACTION = {"command", "token", "app-id", "app-key", "python", "extras"}


def load(path: Path) -> dict[str, Any]:
    document = yaml.safe_load(path.read_text())
    # YAML 1.1 reads the key `on` as true.
    return {"on" if key is True else key: value for key, value in document.items()}


def steps(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in document["jobs"].values():
        yield from job.get("steps", [])


def envvars() -> dict[str, set[str]]:
    """{variable of an option: commands that have it}, for the commands of the action."""
    found: dict[str, set[str]] = {}
    root = typer.main.get_command(app)
    for parameter in root.params:
        if parameter.envvar:
            found.setdefault(str(parameter.envvar), set()).add("gate")
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        if name in {"gate", "bisect", "publish", "answer", "finish"}:
            # What a command group does when nothing in it is named.
            inner = getattr(command, "commands", {}).get("search", command)
            for parameter in inner.params:
                if parameter.envvar:
                    found.setdefault(str(parameter.envvar), set()).add(name)
    return found


def test_every_input_and_output_is_described():
    for kind in ("inputs", "outputs"):
        for name, entry in ACTION[kind].items():
            assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
            assert entry["description"].strip().endswith((".", ")"))
    assert ACTION["name"] == "adapterbot"
    assert set(ACTION["branding"]) == {"icon", "color"}


@pytest.mark.parametrize(("output", "values"), [("verdict", Outcome), ("lock-status", LockStatus)])
def test_outputs_name_every_value_they_can_have(output, values):
    described = set(re.findall(r"`(\w+)`", ACTION["outputs"][output]["description"]))
    assert {value.value for value in values} <= described


@pytest.mark.parametrize("step", STEPS)
def test_no_expression_is_pasted_into_shell_text(step):
    assert EXPRESSION.search(STEPS[step]["run"]) is None
    assert STEPS[step]["shell"] == "bash"


def test_every_input_reaches_an_environment_variable_of_its_own_name():
    used: dict[str, set[str]] = {}
    for step in STEPS.values():
        for variable, value in step["env"].items():
            if match := re.fullmatch(r"\$\{\{ inputs\.([a-z-]+) \}\}", value):
                used.setdefault(match[1], set()).add(variable)
    assert set(used) == set(ACTION["inputs"])
    assert used.pop("token") == {"GITHUB_TOKEN"}
    for name, variables in used.items():
        assert variables == {f"ADAPTERBOT_{name.upper().replace('-', '_')}"}


def test_the_command_line_reads_what_the_action_sets_and_nothing_that_it_does_not():
    names = set(ACTION["inputs"]) - OF_THE_ACTION
    passed_on = {f"ADAPTERBOT_{name.upper().replace('-', '_')}" for name in names}
    assert passed_on == set(envvars())


def test_only_the_steps_that_talk_to_github_see_the_token():
    for secret in ("GITHUB_TOKEN", "ADAPTERBOT_APP_KEY"):
        assert [name for name, step in STEPS.items() if secret in step["env"]] == WITH_TOKEN


def test_outputs_are_those_of_the_command():
    for name, entry in ACTION["outputs"].items():
        assert entry["value"] == f"${{{{ steps.run.outputs.{name} }}}}"


def test_python_is_isolated_from_the_pull_request():
    for step in STEPS.values():
        for line in step["run"].splitlines():
            if ".py" in line:
                assert re.match(r' *(exec )?"\$(python|ADAPTERBOT_PYTHON)" -I ', line)


def test_policy_is_no_input():
    for name in ACTION["inputs"]:
        assert not re.search(r"policy|margin|threshold|fail|allow", name)


@pytest.mark.parametrize("path", [*WORKFLOWS, *EXAMPLES], ids=lambda path: path.name)
def test_workflows_hold_to_the_rules(path):
    document = load(path)
    triggers = document["on"]
    triggers = [triggers] if isinstance(triggers, str) else list(triggers)
    assert "pull_request_target" not in triggers
    assert "permissions" in document
    for step in steps(document):
        uses = step.get("uses", "./")
        if not uses.startswith(("./", "org/adapter-action")):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", uses)
        if uses.startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        if "uses" in step and uses.startswith(("./", "org/adapter-action@")):
            assert set(step.get("with", {})) <= set(ACTION["inputs"])


@pytest.mark.parametrize("path", [*WORKFLOWS, *EXAMPLES], ids=lambda path: path.name)
def test_pins_say_which_version_they_are(path):
    for line in path.read_text().splitlines():
        if re.search(r"uses: actions/", line):
            assert re.search(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line)


@pytest.mark.parametrize("path", [*WORKFLOWS, *EXAMPLES], ids=lambda path: path.name)
def test_a_self_hosted_runner_never_serves_a_fork_unasked(path):
    document = load(path)
    called_or_dispatched = "pull_request" not in document["on"]
    for name, job in document["jobs"].items():
        if "uses" in job or "ubuntu" in str(job["runs-on"]):
            continue
        if "issue_comment" in document["on"]:
            # `command: answer` asks for nothing on a fork's pull request.
            assert job["if"].startswith("needs.answer.outputs.asked == ")
            continue
        # Started by hand, which takes the right to write.
        by_hand = set(document["on"]) == {"workflow_dispatch"}
        if by_hand or (called_or_dispatched and name == "bisect"):
            continue
        condition = "github.event.pull_request.head.repo.full_name == github.repository"
        assert condition in str(job["if"])


def test_the_job_that_runs_weights_holds_no_write_token():
    jobs = load(ROOT / ".github" / "workflows" / "adapter-gate.yml")["jobs"]
    assert set(jobs["evaluate"]["permissions"].values()) == {"read"}
    assert jobs["publish"]["permissions"]["pull-requests"] == "write"
    assert "self-hosted" not in str(jobs["publish"]["runs-on"])


def test_the_button_offers_what_bisect_needs():
    dispatch = load(ROOT / ".github" / "workflows" / "adapter-bisect.yml")["on"][
        "workflow_dispatch"
    ]
    assert {"adapter", "checkpoints", "metric"} <= set(dispatch["inputs"])


def test_the_door_is_twenty_lines():
    assert len((ROOT / "entrypoint.py").read_text().splitlines()) <= 20
