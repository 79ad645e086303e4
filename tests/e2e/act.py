"""Run a user's repository under act, a runner engine that needs neither Docker (host mode) nor
GitHub, with `org/adapter-action@v1` replaced by this tree.

What is real: workflow syntax, expressions, `if:`, inputs, secrets, composite steps, the command
files (GITHUB_OUTPUT, GITHUB_STEP_SUMMARY), workflow commands, reusable workflows. What is not:
`permissions:`, `concurrency:`, the merge commit (act takes the working tree as it is checked out)
and actions from elsewhere: actions/checkout is act's own copy of the repository, artifacts are the
two stand-ins beside this file.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from scripts import setup_env

ROOT = Path(__file__).parents[2]
ACTION = "org/adapter-action@v1"
STAND_INS = Path(__file__).parent / "actions"
TOKEN = "e2e-token-0123456789"
# What a runner's steps need of the machine, and nothing of the developer's own settings.
PASSED_ON = re.compile(
    r"PATH|LANG|LC_ALL|TMPDIR|PIP_.*|SSL_CERT_.*|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
)


@dataclass(frozen=True)
class Annotation:
    """A `::error::` or its milder kin, as GitHub would show it at a file."""

    level: str
    message: str
    file: str | None = None
    line: str | None = None
    title: str | None = None


@dataclass(frozen=True)
class ActRun:
    """What came of a run.

    exit_code: act's own: 0 when every job succeeded, else 1.
    log: what the steps printed, as a reader of the log sees it (secrets are `***`).
    outputs: {step id: {name: value}} of the steps that have an id.
    results: {step id or its position: "success" | "failure" | "skipped"}; the steps inside a
        composite action are "gate/run".
    step_exit_codes: {as above: code} of the steps that failed.
    summary: the job summary, Markdown.
    jobs: {job: "success" | "failure"}; a job that its `if:` skipped is absent.
    """

    exit_code: int
    log: str
    outputs: dict[str, dict[str, str]]
    results: dict[str, str]
    step_exit_codes: dict[str, int]
    summary: str
    annotations: tuple[Annotation, ...]
    jobs: dict[str, str]
    artifacts: Path
    events: tuple[dict[str, Any], ...] = field(repr=False)

    def __str__(self) -> str:
        """For the message of a failed assertion."""
        return f"exit code {self.exit_code}, {self.results}, {self.step_exit_codes}\n{self.log}"


@functools.cache
def action_tree() -> Path:
    """A copy of this tree as Git would ship it: act copies the whole folder for every run, and
    ours also holds a virtual environment."""
    folder = Path(tempfile.mkdtemp(prefix="adapter-action-"))
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def remove_action_tree() -> None:
    """Remove the copy, at the end of the session."""
    if action_tree.cache_info().currsize:
        shutil.rmtree(action_tree(), ignore_errors=True)
        action_tree.cache_clear()


def warm(tool_cache: Path, action: Path, environ: Mapping[str, str]) -> None:
    """Make the runner one on which the action ran before: its environment is there already.

    It is the one that runs these tests, by a symbolic link; so a workflow is run as a user wrote
    it, without `python:`, and yet no run downloads torch.
    """
    for command in ("gate", "publish"):
        place = tool_cache / "adapterbot" / setup_env.wanted(action, command, "", environ).key
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(sys.prefix, target_is_directory=True)


def run_act(
    repository: Path,
    event: str,
    payload: Mapping[str, Any],
    server_url: str,
    inputs: Mapping[str, str] | None = None,
    *,
    workflow: str | None = None,
    job: str | None = None,
    action: Path | None = None,
    environ: Mapping[str, str] | None = None,
    app: Mapping[str, str] | None = None,
    tool_cache_is_warm: bool = True,
    timeout: float = 300,
) -> ActRun:
    """Run the workflows of a repository that react to an event.

    Args:
        repository: a Git repository; its working tree is what the runner checks out.
        event: `pull_request`, `workflow_dispatch`, …
        payload: the event; its `repository.full_name` becomes `github.repository`.
        server_url: base address of the GitHub API that the action talks to.
        inputs: of `workflow_dispatch`.
        workflow: a file under .github/workflows, when only that one is to run.
        job: a job of it, when only that one is to run (and those it needs).
        action: what `org/adapter-action@v1` is, instead of this tree.
        environ: further variables of the runner.
        app: ADAPTERBOT_APP_ID, which is a variable of the repository, and ADAPTERBOT_APP_KEY, a
            secret.
        tool_cache_is_warm: False lets the action build its Python environment.
        timeout: seconds.
    """
    action = action or action_tree()
    base = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
    base["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{base.get('PATH', os.defpath)}"
    payload = {**payload, **({"inputs": dict(inputs)} if inputs else {})}
    # act takes github.repository from the remote, not from the event.
    name = payload.get("repository", {}).get("full_name", "acme/adapters")
    remote = ["config", "remote.origin.url", f"https://github.com/{name}"]
    subprocess.run(["git", "-C", repository, *remote], check=True)

    work = Path(tempfile.mkdtemp(prefix="act-", dir=repository.parent))
    artifacts = work / "artifacts"
    for folder in ("home", "artifacts", "cache"):
        (work / folder).mkdir()
    if tool_cache_is_warm:
        warm(work / "cache" / "tool_cache", action, base)
    (work / "event.json").write_text(json.dumps(payload))

    options: dict[str, list[str | Path]] = {
        "--directory": [repository],
        "--eventpath": [work / "event.json"],
        # Every label of a self-hosted runner, and hosted ones, is this machine itself.
        "--platform": ["self-hosted=-self-hosted", "ubuntu-latest=-self-hosted"],
        "--secret": [f"GITHUB_TOKEN={TOKEN}", *_named(app, "ADAPTERBOT_APP_KEY")],
        "--var": [*_named(app, "ADAPTERBOT_APP_ID")],
        # RUNNER_TOOL_CACHE and the workspace are folders of this one.
        "--action-cache-path": [work / "cache"],
        "--local-repository": [f"{ACTION}={action}", *stand_ins(repository, action)],
        "--env": [
            f"GITHUB_API_URL={server_url}",
            f"GITHUB_GRAPHQL_URL={server_url}/graphql",
            f"ARTIFACTS={artifacts}",
            # The example's tensors are tiny: more threads would mostly wait for each other, busily.
            "OMP_NUM_THREADS=1",
            *(f"{key}={value}" for key, value in (environ or {}).items()),
        ],
        "--input": [f"{key}={value}" for key, value in (inputs or {}).items()],
    }
    # Files that act would read from the repository; GitHub does not know them.
    for kind in ("env", "secret", "var", "input"):
        options[f"--{kind}-file"] = [os.devnull]
    if workflow:
        options["--workflows"] = [f".github/workflows/{workflow}"]
    if job:
        options["--job"] = [job]
    command = [str(Path(sys.executable).parent / "act"), event, "--json", "--no-cache-server"]
    command += [str(text) for flag, values in options.items() for v in values for text in (flag, v)]
    done = subprocess.run(
        command,
        cwd=repository,
        env={**base, "HOME": str(work / "home")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    # After a failure act leaves its copies of the repository and the action for a look.
    shutil.rmtree(work / "cache", ignore_errors=True)
    return read(done, artifacts)


def _named(app: Mapping[str, str] | None, name: str) -> Iterator[str]:
    if app:
        yield f"{name}={app[name]}"


def stand_ins(repository: Path, action: Path) -> Iterator[str]:
    """`actions/upload-artifact@…=folder` for every pin of one that a workflow names."""
    pins = set()
    for root in (repository, action):
        for workflow in (root / ".github" / "workflows").glob("*.yml"):
            for job in yaml.safe_load(workflow.read_text()).get("jobs", {}).values():
                pins |= {step["uses"] for step in job.get("steps", []) if "uses" in step}
    for pin in sorted(pins):
        folder = STAND_INS / pin.partition("@")[0].removeprefix("actions/")
        if pin.startswith("actions/") and folder.is_dir():
            yield f"{pin}={folder}"


def read(done: subprocess.CompletedProcess[str], artifacts: Path) -> ActRun:
    """Sort act's log (JSON lines, apart from its last words) into what a test asks for."""
    events = []
    log = []
    outputs: dict[str, dict[str, str]] = {}
    results: dict[str, str] = {}
    codes: dict[str, int] = {}
    summary: list[str] = []
    annotations = []
    jobs: dict[str, str] = {}
    for line in [*done.stdout.splitlines(), *done.stderr.splitlines()]:
        if not line.startswith("{"):
            log.append(line)
            continue
        event = json.loads(line)
        events.append(event)
        log.append(str(event["msg"]).rstrip("\n"))
        if "jobResult" in event:
            jobs[event["jobID"]] = event["jobResult"]
        if event.get("stage") != "Main":
            continue
        step = "/".join(event["stepID"])
        command = event.get("command")
        if "stepResult" in event:
            results[step] = event["stepResult"]
        elif command == "set-output":
            outputs.setdefault(step, {})[event["name"]] = event["arg"]
        # A composite action repeats the summary of the step inside it.
        elif command == "summary" and event["content"] not in summary:
            summary.append(event["content"])
        elif command in {"error", "warning", "notice"}:
            where = event.get("kvPairs") or {}
            annotations.append(
                Annotation(
                    command, event["arg"], where.get("file"), where.get("line"), where.get("title")
                )
            )
        elif code := re.fullmatch(r"exit status (\d+)", str(event["msg"])):
            codes[step] = int(code[1])
    return ActRun(
        exit_code=done.returncode,
        log="\n".join(log),
        outputs=outputs,
        results=results,
        step_exit_codes=codes,
        summary="".join(summary),
        annotations=tuple(annotations),
        jobs=jobs,
        artifacts=artifacts,
        events=tuple(events),
    )
