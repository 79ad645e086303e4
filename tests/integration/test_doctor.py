"""`adapterbot doctor`: what it finds wrong is wrong, and what it says to do about it mends it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adapterbot.cli import app
from adapterbot.commands.doctor import run
from adapterbot.doctor import Finding, Status, exit_code
from tests import command_line, example
from tests.github_app import POSTING, with_app
from tests.github_server import Fault, GitHubServer

Found = dict[str, Finding]
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 30000000\n"


@pytest.fixture
def server() -> Iterator[GitHubServer]:
    with GitHubServer() as server:
        server.add_pull(example.REPOSITORY, example.NUMBER)
        yield server
        assert server.violations == []


@pytest.fixture
def look(tmp_path: Path) -> Callable[..., Found]:
    def looked(**environment: str) -> Found:
        environment.setdefault("ADAPTERBOT_CACHE", str(tmp_path / "cache"))
        return {finding.what: finding for finding in run(environment)}

    return looked


def test_a_whole_repository_is_whole(repository: Path, look: Callable[..., Found]) -> None:
    found = look()
    assert found["evals/suite.yaml"].status is Status.OK
    assert found["soup.lock"].status is Status.OK
    assert exit_code(found.values()) == 0
    assert all(finding.fix for finding in found.values() if finding.status is not Status.OK)


def test_a_user_without_a_home_is_told(
    monkeypatch: pytest.MonkeyPatch, look: Callable[..., Found]
) -> None:
    """As in a container that runs under a number of its own: it ended there, in an error."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 9)
    found = {finding.what: finding for finding in run({})}
    for place in ("scores kept in", "models kept in"):
        assert found[place].status is Status.MISSING
        assert "ADAPTERBOT_CACHE" in found[place].fix
    found = look(HF_HOME="/tmp")
    assert {found[place].status for place in ("scores kept in", "models kept in")} == {Status.OK}


def test_attack_words_of_the_repository_command_no_terminal_and_no_runner(repository: Path) -> None:
    label = r"x\n::set-output name=verdict::passed\e[2J"
    job = f'runs-on: "{label}", steps: [{{uses: org/adapter-action@v1}}]'
    (repository / ".github/workflows").mkdir(parents=True, exist_ok=True)
    (repository / ".github/workflows/gate.yml").write_text(f"jobs: {{gate: {{{job}}}}}\n")
    said = CliRunner().invoke(app, ["doctor"]).output
    assert "set-output" in said
    assert "\x1b" not in said
    assert not any(line.startswith("::") for line in said.splitlines())


def test_attack_a_workflow_of_aliases_is_not_written_out(repository, look):
    lines = ["x0: &x0 [lol]"]
    lines += [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 12)]
    ours = "{uses: org/adapter-action@v1}"
    lines.append(f"jobs: {{a: {{runs-on: [self-hosted, *x11], steps: [{{uses: *x11}}, {ours}]}}}}")
    workflows = repository / ".github" / "workflows"
    workflows.mkdir(parents=True, exist_ok=True)
    (workflows / "bomb.yml").write_text("\n".join(lines))
    assert look()["runs-on"].found == "self-hosted (bomb.yml: a)"


def test_what_is_no_workflow_is_passed_over(repository: Path, look: Callable[..., Found]) -> None:
    workflows = repository / ".github" / "workflows"
    workflows.mkdir(parents=True, exist_ok=True)
    odd = ("[" * 5000, "jobs: {a: {steps: 5}}", "on: 2026-13-45", "jobs: [1]", "- 1", "a: b: c")
    for number, content in enumerate(odd):
        (workflows / f"odd{number}.yml").write_text(content)
    assert look()["runner"].status is Status.OK


@pytest.mark.parametrize(
    ("file", "content", "what", "said"),
    [
        ("adapterbot.yaml", "adapters: [{pth: a}]\n", "config", "pth"),
        ("evals/suite.yaml", "version: 1\ntasks: []\n", "evals/suite.yaml", "tasks"),
        ("soup.yaml", "base: ./base\n", "soup.yaml", "data"),
        ("soup.lock", "{}", "soup.lock", "is missing"),
        ("adapters/dates/adapter_model.safetensors", POINTER, "Git LFS", "is a pointer"),
    ],
)
def test_what_the_gate_would_refuse_is_wrong(repository, look, file, content, what, said):
    (repository / file).write_text(content)
    found = look()
    assert found[what].status is Status.WRONG
    assert said in found[what].found
    assert found[what].fix
    assert exit_code(found.values()) == 2


def test_without_a_training_config_nothing_is_judged_and_without_a_lock_all_is(repository, look):
    """The gate takes the base model from the one, and only says that the other is missing."""
    for name in ("soup.yaml", "soup.lock"):
        (repository / name).unlink()
    found = look()
    assert found["soup.yaml"].status is Status.WRONG
    assert "`base:`" in found["soup.yaml"].fix
    assert found["soup.lock"].status is Status.NOTE


def test_where_there_is_no_adapter_one_is_to_be_put_before_init_helps(repository, look):
    for name in ("adapters", "checkpoints"):
        shutil.rmtree(repository / name)
    (repository / "adapterbot.yaml").unlink()
    config = look()["config"]
    assert config.status is Status.NOTE
    assert config.fix == (
        "commit a PEFT adapter directory, or name it with --adapter; `adapterbot init` writes the "
        "rest"
    )


def test_lfs_is_missing_only_where_it_is_used(repository, look, monkeypatch):
    monkeypatch.setenv("PATH", str(_path_with(repository.parent, "git")))
    assert look()["Git LFS"].status is Status.OK
    # Beside the weights, as what comes from the Hub has it.
    attributes = repository / "adapters" / "dates" / ".gitattributes"
    attributes.write_text("*.safetensors filter=lfs diff=lfs merge=lfs\n")
    found = look()
    assert found["Git LFS"].status is Status.MISSING
    assert exit_code(found.values()) == 1


def _path_with(place: Path, *programs: str) -> Path:
    folder = place / "bin"
    folder.mkdir()
    for name in programs:
        (folder / name).symlink_to(shutil.which(name) or "")
    return folder


def test_the_driver_is_told_as_nvidia_smi_has_it(repository, look, monkeypatch):
    folder = _path_with(repository.parent, "git", "sh")
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H100, 580.65.06, 81559 MiB, 4 MiB'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    assert look()["driver"].found == "NVIDIA H100, 580.65.06, 81559 MiB, 4 MiB"
    program.write_text("#!/bin/sh\nexit 9\n")
    assert look()["driver"].found == "nvidia-smi fails"


def test_a_server_that_evaluates_needs_no_torch_here(repository, look, monkeypatch):
    (repository / "adapterbot.yaml").write_text(
        "server: {url: 'http://localhost:8000/v1'}\nadapters: [{path: adapters/dates}]\n"
    )
    # None in sys.modules is how Python itself marks a module that must not load.
    monkeypatch.setitem(sys.modules, "torch", None)
    assert look()["CUDA"].status is Status.NOTE
    (repository / "adapterbot.yaml").unlink()
    assert look()["CUDA"].status is Status.MISSING


@pytest.mark.parametrize("place", ["attested_by", "adapters: [{path: a, policy: {attested_by"])
def test_sigstore_is_asked_for_where_a_policy_trusts_a_workflow(repository, look, place):
    assert "sigstore" not in look()
    closing = "}}]" if place.startswith("adapters") else "\nadapters: [{path: a}]"
    (repository / "adapterbot.yaml").write_text(
        f"{place}: [{{identity: 'https://h/w'}}]{closing}\n"
    )
    assert "sigstore" in look()


def test_what_a_policy_trusts_is_looked_at_before_anybody_signs(repository, look):
    broken = "-----BEGIN PUBLIC KEY-----\\nAAAA\\n-----END PUBLIC KEY-----\\n"
    for signer, said in (
        (f'"{broken}"', "is not a public key in PEM"),
        ("{identity: 'https://h/w', trust_config: trust.json}", "trust.json: does not exist"),
    ):
        (repository / "adapterbot.yaml").write_text(
            f"attested_by: [{signer}]\nadapters: [{{path: adapters/dates}}]\n"
        )
        found = look()["attested_by"]
        assert found.status is Status.WRONG
        assert said in found.found


def test_weights_that_git_ignores_are_in_no_commit(repository, look):
    (repository / "adapterbot.yaml").write_text("adapters: [{path: ./adapters/dates/}]\n")
    (repository / ".gitignore").write_text("*.safetensors\ncheckpoint-*\n")
    more = repository / "adapters" / "dates" / "checkpoint-1"
    more.mkdir()
    (more / "adapter_model.safetensors").write_text("left by a run")
    assert "ignored" not in look()  # these were committed before
    example.git(repository, "rm", "-q", "--cached", "adapters/dates/adapter_model.safetensors")
    found = look()["ignored"]
    assert (found.status, found.found[:40]) == (
        Status.WRONG,
        "adapters/dates/adapter_model.safetensors",
    )


def test_an_adapter_that_nobody_listed_is_named(repository, look):
    """It has neither margins nor a suite of its own."""
    assert "not listed" not in look()
    for name in ("b", "a"):
        (repository / "adapters" / name).mkdir()
        (repository / "adapters" / name / "adapter_config.json").write_text("{}")
    (repository / "adapter_config.json").write_text("{}")
    (repository / "adapterbot.yaml").write_text("adapters: [{path: adapters/dates/}, {path: .}]\n")
    found = look()["not listed"]
    assert (found.status, found.found[:25]) == (Status.NOTE, "adapters/a, adapters/b: a")


def test_a_name_that_no_report_can_hold_is_one_finding_of_many(repository, look):
    shutil.copytree(repository / "adapters" / "dates", repository / "adapters" / "two\nlines")
    found = look()
    assert found["not listed"].status is Status.WRONG
    assert "control character" in found["not listed"].found
    assert "token" in found


def test_labels_that_a_runner_needs_are_named(repository, look):
    folder = repository / ".github" / "workflows"
    folder.mkdir(parents=True)
    shutil.copyfile(
        example.EXAMPLE.parents[1] / "docs/examples/adapter-gate.yml", folder / "adapter-gate.yml"
    )
    found = look()["runs-on"]
    assert "self-hosted, gpu" in found.found
    assert "--labels gpu" in found.fix
    on_runner = {"GITHUB_ACTIONS": "true", "RUNNER_ENVIRONMENT": "self-hosted", "RUNNER_NAME": "g1"}
    found = look(**on_runner)
    assert found["runs-on"].status is Status.OK
    assert found["runner"].found == "self-hosted, g1"


@pytest.mark.parametrize(
    ("asked", "said", "fix"),
    [
        ("{group: big, labels: [self-hosted, gpu]}", "group big, self-hosted, gpu", "labels gpu`"),
        ("{labels: [self-hosted, gpu, a100]}", "self-hosted, gpu, a100", "labels gpu,a100`"),
        ("{group: big, labels: ubuntu-24.04-16core}", "group big, ubuntu-24.04-16core", None),
        ("{group: org/big}", "group org/big", None),
        ("{group: [big], labels: {gpu: 1}}", None, None),
    ],
)
def test_a_mapping_names_a_group_of_runners_and_its_labels(repository, look, asked, said, fix):
    workflows = repository / ".github" / "workflows"
    workflows.mkdir(parents=True, exist_ok=True)
    job = f"{{runs-on: {asked}, steps: [{{uses: org/adapter-action@v1}}]}}"
    (workflows / "gate.yml").write_text(f"jobs: {{gate: {job}}}\n")
    found = look().get("runs-on")
    assert (found and found.found) == (said and f"{said} (gate.yml: gate)")
    assert not fix or (found.status is Status.NOTE and fix in found.fix)
    assert fix or found is None or found.status is Status.OK


# ---------------------------------------------------------------- the token


def job(server: GitHubServer, token: str) -> dict[str, str]:
    return {
        "GITHUB_TOKEN": token,
        "GITHUB_API_URL": server.url,
        "GITHUB_GRAPHQL_URL": server.graphql_url,
        "GITHUB_REPOSITORY": example.REPOSITORY,
    }


@pytest.mark.parametrize(
    ("rights", "comment", "check"),
    [
        ({}, Status.OK, Status.OK),
        ({"read_only": True}, Status.WRONG, Status.NOTE),
        ({"forbidden": ("checks/",)}, Status.OK, Status.NOTE),
        ({"forbidden": ("issues/",)}, Status.WRONG, Status.OK),
    ],
)
def test_what_a_token_may_do_is_asked_and_nothing_written(server, look, rights, comment, check):
    server.add_token("ghs_job", **rights)
    found = look(**job(server, "ghs_job"))
    assert found["token"].found.startswith("an App's or the job's own token, speaks for github-act")
    assert found["pull-requests: write"].status is comment
    assert found["checks: write"].status is check
    assert server.comments(example.REPOSITORY, example.NUMBER) == []
    assert server.check_runs == []


def test_a_token_that_github_does_not_know_is_wrong(server, look):
    found = look(**job(server, "ghp_stale"))
    assert found["token"].status is Status.WRONG
    assert "a classic personal token" in found["token"].found
    assert "ghp_stale" not in str(found)


@pytest.mark.parametrize(
    ("permissions", "app", "comment", "check"),
    [
        (POSTING, Status.OK, Status.OK, Status.OK),
        ({"pull_requests": "write"}, Status.OK, Status.OK, Status.NOTE),
        ({"checks": "write"}, Status.OK, Status.WRONG, Status.OK),
        ({"contents": "write"}, Status.WRONG, None, None),
    ],
)
def test_an_app_is_asked_as_the_gate_would(
    repository, server, look, permissions, app, comment, check
):
    given = with_app(server, permissions=permissions, repository=example.REPOSITORY)
    example.git(repository, "remote", "add", "origin", f"{server.url}/{example.REPOSITORY}.git")
    found = look(**given)
    assert found["token"].status is app
    assert found["token"].found.startswith("the App 321")
    assert ("lacks pull_requests: write" in found["token"].found) is (app is Status.WRONG)
    writes = [found.get(f"{name}: write") for name in ("pull-requests", "checks")]
    assert [write and write.status for write in writes] == [comment, check]


def test_a_name_that_the_repository_no_longer_has_grants_nothing(server, look):
    server.add_token("ghs_job")
    moved = {"Location": f"{server.url}/repositories/1/issues/comments/0"}
    server.inject(Fault("PATCH", status=307, message="Temporary Redirect", headers=moved))
    found = look(**job(server, "ghs_job"))
    assert found["token"].status is Status.WRONG
    assert "no longer in use" in found["token"].found
    assert "pull-requests: write" not in found


def test_json_is_one_document_and_the_code_says_the_worst(repository: Path) -> None:
    (repository / "evals" / "suite.yaml").write_text("")
    done = command_line.run("doctor", "--json", env={**os.environ, "GITHUB_TOKEN": ""})
    assert done.returncode == 2, done.stderr
    by_name = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert by_name["evals/suite.yaml"]["status"] == "wrong"
