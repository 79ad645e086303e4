"""adapterbot.yaml: what it may say, what a repository without one implies, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbot.config import FailOn, OnDrift, Workflow, key_of, load
from adapterbot.errors import InputError
from adapterbot.marker import marker

FULL = b"""\
version: 1
base_model: /models/llama
allow_forks: false
server: {url: "http://127.0.0.1:8000/v1"}
adapters:
  - path: adapters/dates
    key: dates
    config: train/soup.yaml
    lock: train/soup.lock
    suite: evals/dates.yaml
    baseline: none
    archive: checkpoints/dates/*
    policy:
      alpha: 0.01
      on_drift: warn
      fail_on: [regressed, inconclusive]
      metrics:
        date_us: {margin: 0.02, gated: true}
  - path: adapters/amounts
"""


def test_a_full_file_loads() -> None:
    config = load(FULL, "adapterbot.yaml")
    dates, amounts = config.adapters
    assert config.server is not None
    assert config.server.url == "http://127.0.0.1:8000/v1"
    assert dates.key == "dates"
    assert dates.policy.on_drift is OnDrift.WARN
    assert dates.policy.fail_on == (FailOn.REGRESSED, FailOn.INCONCLUSIVE)
    assert dates.policy.metrics["date_us"].margin == 0.02
    assert amounts.key == "adapters-amounts"
    assert amounts.baseline == "base-ref"
    assert amounts.policy.on_drift is OnDrift.FAIL


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must be a mapping"),
        ("- a", "must be a mapping"),
        ("version: 2\nadapters: [{path: a}]", "version (line 1): is 2; it must be 1"),
        ("adapters: []", "adapters: is empty"),
        ("adapters:\n  - path: a\n    sute: b", "adapters[0].sute (line 3): is not a field"),
        ("adapters:\n  - path: a\n    sute: b", "did you mean 'suite'?"),
        (
            "policy: {}\nadapters: [{path: a}]",
            "policy (line 1): does not go here (move it to adapters[].policy)",
        ),
        (
            "adapters: [{path: a, margin: 1}]",
            "does not go here (move it to adapters[].policy.metrics.NAME.margin)",
        ),
        ("adapters: [{path: a}]\nattested_by: [k]", "attested_by[0].key (line 2): is 'k', which"),
        (
            "adapters:\n  - path: a\n    policy:\n      attested_by:\n        - issuer: b",
            "attested_by[0].workflow.identity (line 5): is missing",
        ),
        ("adapters: [{path: a}]\nzzzzqq: 1", "zzzzqq (line 2): is not a field we know (remove"),
        ("adapters: [{key: a}]", "adapters[0].path (line 1): is missing"),
        ("adapters: [a]", "adapters[0] (line 1): is 'a', not a mapping of fields"),
        ("adapters: {path: a}", "adapters (line 1): is a mapping of fields, not a list"),
        ("adapters: [{path: 3}]", "adapters[0].path (line 1): is 3, not text"),
        ("adapters: [{path: a}]\nallow_forks: 3", "allow_forks (line 2): is 3, neither true nor"),
        (
            "adapters: [{path: a}]\nserver: {url: localhost:8000}",
            "server.url (line 2): must be an address such as http://127.0.0.1:8000/v1",
        ),
        ("adapters: [{path: /etc}]", "path is absolute"),
        ("adapters: [{path: ../x}]", "path leaves the repository"),
        ('adapters: [{path: "a\\nb"}]', "control character"),
        ("adapters: [{path: a}, {path: ./a}]", "the key 'a' is used by two adapters"),
        ("adapters: [{path: a, key: A B}]", "adapters[0].key (line 1)"),
        ("adapters: [{path: a, archive_data: {files: d}}]", "must hold {step} once"),
        ('adapters: [{path: a, archive_data: {files: "../{step}"}}]', "path leaves the repository"),
        ("adapters: [{path: a}]\nhistory: {}", "name a branch or a file, and not both"),
        ("adapters: [{path: a}]\nhistory: {branch: h, file: f}", "name a branch or a file"),
        ("adapters: [{path: a}]\nhistory: {branch: -x}", "history.branch (line 2)"),
        (
            "adapters: [{path: a, policy: {alpha: 0.9}}]",
            "adapters[0].policy.alpha (line 1): is 0.9; it must be less than 0.5",
        ),
        ("adapters: [{path: a, policy: {metrics: {m: {margin: -1}}}}]", "margin"),
        ("adapters: [{path: a, policy: {metrics: {m: {margin: .nan}}}}]", "margin"),
    ],
)
def test_mistakes_are_one_clear_line(text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        load(text.encode(), "adapterbot.yaml")
    line = str(caught.value)
    assert says in line
    assert "\n" not in line
    assert caught.value.fix


@pytest.mark.parametrize("place", [{"branch": "adapterbot/history"}, {"file": "/var/h.sqlite"}])
def test_results_are_kept_in_one_place(place: dict[str, str]) -> None:
    ((name, where),) = place.items()
    config = load(f"adapters: [{{path: a}}]\nhistory: {{{name}: {where}}}".encode(), "a.yaml")
    assert config.history
    assert config.history.model_dump(exclude_none=True) == place


@given(st.text(min_size=1, max_size=300))
def test_every_key_fits_a_marker(path: str) -> None:
    # A key that could close the HTML comment would let a directory name forge our marker.
    assert marker(key_of(path))


@pytest.mark.parametrize(
    ("more", "ran_in"),
    [
        ({}, "https://github.com/org/repo"),
        ({"repository": "https://github.com/org/other"}, "https://github.com/org/other"),
        ({"issuer": "https://gitlab.example"}, None),
        ({"issuer": "https://gitlab.example", "repository": "https://x"}, "https://x"),
    ],
)
def test_a_workflow_counts_from_the_repository_that_ran_it(
    more: dict[str, str], ran_in: str | None
) -> None:
    """Attack: a stranger's repository calls a reusable workflow that is trusted here."""
    identity = "https://github.com/org/repo/.github/workflows/train.yml@refs/heads/main"
    assert Workflow(identity=identity, **more).ran_in == ran_in
