"""The action's own machinery under the real runner engine: environment, inputs, outputs, exit
codes, isolation. Uses a command line of three lines in the place of adapterbot.cli, so that a
failure here is the action's and not the gate's."""

from __future__ import annotations

import re
import shutil
import textwrap
import zipfile
from pathlib import Path

import pytest

from tests.e2e.act import ROOT, TOKEN, action_tree, run_act
from tests.example import commit, git, pull_request
from tests.github_server import GitHubServer

GATE = ROOT / "docs" / "examples" / "adapter-gate.yml"
API = "http://127.0.0.1:9"  # nobody listens there: these runs talk to no server

CLI = """
import json, os, sys
def program(argv):
    seen = {k: v for k, v in os.environ.items() if k.startswith(("ADAPTERBOT_", "GITHUB_API"))}
    seen |= {"argv": argv, "cwd": os.getcwd(), "isolated": sys.flags.isolated,
             "utf8": sys.flags.utf8_mode, "token": os.environ["GITHUB_TOKEN"][::-1]}
    print("seen", json.dumps(seen))
    with open(os.environ["GITHUB_OUTPUT"], "a") as f:
        for name in ("verdict", "lock-status", "first-bad-checkpoint", "comment-url",
                     "report-path", "page-path"):
            print(f"{name}=a {name}", file=f)
    with open(os.environ["GITHUB_STEP_SUMMARY"], "a") as f:
        print("# regressed", file=f)
    print("::error file=adapters/dates,line=2,title=adapterbot::it broke")
    sys.exit(3 if os.environ["ADAPTERBOT_ADAPTER"] == "bad" else 0)
"""


@pytest.fixture
def action(tmp_path: Path) -> Path:
    """The action as it is, with another command line inside."""
    folder = tmp_path / "action"
    (folder / "adapterbot").mkdir(parents=True)
    (folder / "adapterbot" / "__init__.py").touch()
    (folder / "adapterbot" / "cli.py").write_text(CLI)
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    shutil.copytree(ROOT / ".github" / "workflows", folder / ".github" / "workflows")
    for name in ("action.yml", "entrypoint.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A user's repository whose workflow is the one in the README, on a pull request's branch."""
    folder = tmp_path / "adapters"
    (folder / ".github" / "workflows").mkdir(parents=True)
    shutil.copy(GATE, folder / ".github" / "workflows")
    git(folder.parent, "init", "--quiet", "--initial-branch=main", folder.name)
    commit(folder, "base")
    git(folder, "switch", "--quiet", "--create", "better-dates")
    return folder


def workflow(repository: Path, text: str) -> None:
    """Replace the workflow by another one."""
    path = repository / ".github" / "workflows" / GATE.name
    path.write_text(textwrap.dedent(text))
    commit(repository, "another workflow")


def gated(repository: Path, inputs: str) -> None:
    """Replace the workflow by a job that passes these inputs, and says what came out."""
    workflow(
        repository,
        f"""
        on: pull_request
        jobs:
          gate:
            runs-on: [self-hosted, gpu]
            steps:
              - uses: actions/checkout@v6
              - uses: org/adapter-action@v1
                id: gate
                with: {{{inputs}}}
              - if: always()
                env:
                  SEEN: ${{{{ toJSON(steps.gate.outputs) }}}}
                run: echo "$SEEN"
        """,
    )


def test_the_workflow_of_the_readme_runs_the_command_line(repository, action):
    run = run_act(repository, "pull_request", pull_request(repository), API, action=action)
    assert run.exit_code == 0, run
    assert run.jobs == {"gate": "success"}
    assert '"argv": ["gate"]' in run.log
    assert '"isolated": 1' in run.log
    assert '"utf8": 1' in run.log
    assert f'"GITHUB_API_URL": "{API}"' in run.log
    assert f'"token": "{TOKEN[::-1]}"' in run.log
    assert TOKEN not in run.log
    assert run.summary == "# regressed\n"
    assert [(a.level, a.file, a.line, a.message) for a in run.annotations] == [
        ("error", "adapters/dates", "2", "it broke")
    ]


def test_a_pull_request_from_a_fork_does_not_reach_the_runner(repository, action):
    payload = pull_request(repository, head_repository="stranger/adapters")
    run = run_act(repository, "pull_request", payload, API, action=action)
    assert run.exit_code == 0, run
    assert run.results == {}


def test_inputs_arrive_as_values_and_never_as_shell_text(repository, action):
    hostile = "a b'\"$(touch owned)`touch owned`; touch owned #"
    workflow(
        repository,
        """
        on:
          workflow_dispatch:
            inputs:
              adapter: {type: string}
        jobs:
          gate:
            runs-on: [self-hosted, gpu]
            steps:
              - uses: actions/checkout@v6
              - uses: org/adapter-action@v1
                with:
                  command: bisect
                  adapter: ${{ inputs.adapter }}
                  metric: ${{ inputs.adapter }}
                  python: python3
              - run: test ! -e owned
        """,
    )
    run = run_act(
        repository,
        "workflow_dispatch",
        {"repository": {"full_name": "acme/adapters"}},
        API,
        {"adapter": hostile},
        action=action,
    )
    assert run.exit_code == 0, run
    assert '"argv": ["bisect"]' in run.log
    quoted = hostile.replace("\\", "\\\\").replace('"', '\\"')
    assert f'"ADAPTERBOT_ADAPTER": "{quoted}"' in run.log


def test_a_finding_fails_the_job_with_its_exit_code_and_still_has_outputs(repository, action):
    gated(repository, "adapter: bad")
    run = run_act(repository, "pull_request", pull_request(repository), API, action=action)
    assert run.exit_code == 1, run
    assert run.jobs == {"gate": "failure"}
    assert run.step_exit_codes["gate/run"] == 3
    of_answer = dict.fromkeys(("asked", "metric", "head-sha", "base-sha"), "")
    assert run.outputs["gate"] == of_answer | {
        name: f"a {name}"
        for name in (
            "verdict",
            "lock-status",
            "first-bad-checkpoint",
            "comment-url",
            "report-path",
            "page-path",
        )
    }
    assert '"first-bad-checkpoint": "a first-bad-checkpoint"' in run.log


def test_attack_nothing_in_the_pull_request_is_imported_or_read_as_settings(repository, action):
    """Files named like what Python, the action and torch import, and a .env, in the checkout."""
    names = (
        "sitecustomize",
        "usercustomize",
        "conftest",
        "adapterbot",
        "torch",
        "json",
        "encodings",
        "tomllib",
    )
    for name in names:
        (repository / f"{name}.py").write_text("raise SystemExit('the pull request ran')\n")
    (repository / ".env").write_text("ADAPTERBOT_COMMAND=publish\nPYTHONPATH=.\n")
    (repository / "pip.conf").write_text("[global]\nindex-url = https://evil.invalid/simple\n")
    (repository / "adapterbot.yaml").write_text("adapters: []\n")
    commit(repository, "hostile files")
    run = run_act(
        repository,
        "pull_request",
        pull_request(repository),
        API,
        action=action,
        environ={"PYTHONPATH": "."},
    )
    assert run.exit_code == 0, run
    assert '"argv": ["gate"]' in run.log


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            "command: serve",
            "title=adapterbot::input command: use gate, bisect, publish or answer",
        ),
        ("python: /nowhere/python", "/nowhere/python is not a Python that runs"),
        ("extras: everything", "input extras: 'everything' is unknown; use some of "),
    ],
)
def test_bad_inputs_are_one_clear_line_and_exit_code_2(repository, action, inputs, message):
    gated(repository, inputs)
    run = run_act(repository, "pull_request", pull_request(repository), API, action=action)
    assert set(run.step_exit_codes.values()) == {2}, run
    assert message in run.log


def test_a_cold_runner_builds_its_environment_outside_the_workspace(repository, action, tmp_path):
    (action / "pyproject.toml").write_text(
        '[project]\ndependencies = ["tinydep"]\n[project.optional-dependencies]\neval = []\n'
    )
    (action / "constraints.txt").write_text("tinydep==1.0\n")
    cli = "import tinydep, sys\ndef program(argv): print('built', sys.prefix, tinydep.ANSWER)\n"
    (action / "adapterbot" / "cli.py").write_text(cli)
    info = "tinydep-1.0.dist-info"
    with zipfile.ZipFile(tmp_path / "tinydep-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tinydep.py", "ANSWER = 42\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinydep\nVersion: 1.0\n")
        tags = "Root-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\n{tags}")
        wheel.writestr(f"{info}/RECORD", "")
    run = run_act(
        repository,
        "pull_request",
        pull_request(repository),
        API,
        action=action,
        environ={"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)},
        tool_cache_is_warm=False,
    )
    assert run.exit_code == 0, run
    [line] = [line for line in run.log.splitlines() if line.startswith("built ")]
    _, prefix, answer = line.split()
    assert answer == "42"
    assert "/tool_cache/adapterbot/py3." in prefix


TWO_JOBS_CLI = """
import json, os, pathlib, sys
def program(argv):
    output = pathlib.Path(os.environ["GITHUB_OUTPUT"]).open("a")
    if argv == ["gate"]:
        assert os.environ["ADAPTERBOT_PUBLISH"] == "none"
        report = pathlib.Path(os.environ["RUNNER_TEMP"], "report.json")
        if os.environ["ADAPTERBOT_ADAPTER"] != "crash":
            report.write_text('{"what": "a report"}')
            print(f"report-path={report}", "verdict=regressed", sep="\\n", file=output)
        sys.exit(3)
    report = pathlib.Path(os.environ["ADAPTERBOT_REPORT"])
    print("publishing", report.read_text() if report.exists() else "nothing")
    print("comment-url=https://example.invalid/1", file=output)
    sys.exit(3)
"""


@pytest.mark.parametrize(
    ("adapter", "published"), [("dates", '{"what": "a report"}'), ("crash", "nothing")]
)
def test_the_reusable_workflow_publishes_from_a_job_of_its_own(
    repository, action, adapter, published
):
    (action / "adapterbot" / "cli.py").write_text(TWO_JOBS_CLI)
    workflow(
        repository,
        f"""
        on: pull_request
        jobs:
          gate:
            uses: org/adapter-action/.github/workflows/adapter-gate.yml@v1
            with: {{adapter: {adapter}}}
        """,
    )
    run = run_act(repository, "pull_request", pull_request(repository), API, action=action)
    assert run.jobs["evaluate"] == "failure", run
    assert f"publishing {published}" in run.log
    assert run.outputs["publish"]["comment-url"] == "https://example.invalid/1"
    assert run.exit_code == 1


def test_the_two_jobs_run_where_they_were_copied(repository, action):
    """Without `workflow_call` there are no inputs, and no defaults of theirs."""
    (action / "adapterbot" / "cli.py").write_text(TWO_JOBS_CLI)
    text = (ROOT / ".github" / "workflows" / "adapter-gate.yml").read_text()
    events = re.compile(r"^on:\n(  .*\n)+", re.MULTILINE)
    workflow(repository, events.sub("on: [pull_request, merge_group]\n", text))
    run = run_act(repository, "pull_request", pull_request(repository), API, action=action)
    assert run.jobs["evaluate"] == "failure", run
    assert 'publishing {"what": "a report"}' in run.log


def test_our_own_selftest_of_bad_input(tmp_path):
    """The real action on itself, `uses: ./`: the workflow holds the assertions."""
    repository = tmp_path / "adapter-action"
    shutil.copytree(action_tree(), repository)
    git(tmp_path, "init", "--quiet", "--initial-branch=main", repository.name)
    commit(repository, "the action")
    with GitHubServer() as server:
        server.add_token(TOKEN)
        server.add_pull("acme/adapters", 7)
        run = run_act(
            repository,
            "pull_request",
            pull_request(repository),
            server.url,
            workflow="selftest.yml",
            job="bad-input",
        )
        (comment,) = server.comments("acme/adapters", 7)
    assert "could not" in comment.body.lower()
    assert run.exit_code == 0, run
    assert run.step_exit_codes["bad/run"] == 2, run
