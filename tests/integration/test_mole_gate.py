"""A pull request that changes a mixture: evaluated like any adapter, and shown who wrote what."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapterbot.changes.conventions import adapter_directories
from adapterbot.commands.evaluate import EvalOptions
from adapterbot.commands.evaluate import run as evaluate
from adapterbot.commands.gate import GateOptions
from adapterbot.commands.gate import run as gate
from adapterbot.errors import InputError
from adapterbot.files.tree import WorkTree
from adapterbot.mole import load_mixture
from adapterbot.mole.artifact import read_mixture, read_mixture_dir
from adapterbot.mole.mixture import Mixture
from adapterbot.mole.saving import save_mixture
from adapterbot.records import AdapterReport, Outcome
from adapterbot.weights import load_adapter
from adapterbot.weights.mixture_config import GateConfig
from tests import example

MIXTURE = "mixtures/dates"
EXPERTS = ("dates_us", "dates_iso")
CONFIG = f"""version: 1
adapters:
  - path: {MIXTURE}
    suite: evals/small.yaml
    policy: {{on_drift: warn, self_check: 0}}
"""
SUITE = """version: 1
tasks:
  - {name: us, data: us.jsonl, scorer: exact, generation: {max_new_tokens: 16, stop: ["\\n"]}}
  - {name: prose, data: us.jsonl, scorer: bits_per_byte, margin: 0.1}
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On main a mixture whose gate means something; on the branch one that knows nothing, so that
    every tie goes to the expert that comes first."""
    repo = example.build(tmp_path_factory.mktemp("mole-gate") / "repository", "clean")
    example.git(repo, "checkout", "-q", "main")
    for name in EXPERTS:
        example.copy(example.EXAMPLE / "experts" / name, repo / "experts" / name)
    rows = (repo / "evals" / "dates_us.jsonl").read_text().splitlines()[:12]
    (repo / "evals" / "us.jsonl").write_text("\n".join(rows))
    (repo / "evals" / "small.yaml").write_text(SUITE)
    (repo / "adapterbot.yaml").write_text(CONFIG)
    model = AutoModelForCausalLM.from_pretrained(repo / "base")
    experts = {name: load_adapter(repo / "experts" / name) for name in EXPERTS}
    config = GateConfig(num_task_adapters=len(EXPERTS), top_k=1)
    with Mixture(model, experts, config, seed=3) as mixture:
        places = {name: repo / "experts" / name for name in EXPERTS}
        save_mixture(repo / MIXTURE, mixture, places, base_model="base")
    example.commit(repo, "a mixture")
    example.git(repo, "checkout", "-q", "-b", "forget")
    gate_file = repo / MIXTURE / "gate.safetensors"
    save_file({"gate.weight": torch.zeros_like(load_file(gate_file)["gate.weight"])}, gate_file)
    example.commit(repo, "a gate that knows nothing")
    return repo


def judged(repo: Path, place: Path) -> tuple[AdapterReport, str]:
    written = gate(
        GateOptions(base="main", head="HEAD", device="cpu", out=place / "out"),
        {"ADAPTERBOT_CACHE": str(place / "scores")},
    )
    (report,) = written.report.adapters
    return report, (place / "out" / "comment.md").read_text()


def route_by_hand(repo: Path, mixture: Path, said: Path) -> list[float]:
    """Shares of the `us` task, from the answers that were kept, one forward pass each."""
    model = AutoModelForCausalLM.from_pretrained(repo / "base").eval()
    tokenizer = AutoTokenizer.from_pretrained(repo / "base")
    total = torch.zeros(len(EXPERTS))
    with load_mixture(model, mixture) as found:
        for line in said.read_text().splitlines()[1:]:
            row = json.loads(line)
            if row["task"] != "us":
                continue
            prompt = tokenizer(row["sample"]["prompt"])["input_ids"]
            answer = tokenizer(row["sample"]["output"], add_special_tokens=False)["input_ids"]
            weights = found.route(torch.tensor([prompt + answer]))[:, 0]
            for at in range(len(prompt) - 1, len(prompt) + len(answer) - 1):
                total += weights[:, at].mean(0)
    return [float(share) for share in total / total.sum()]


def test_a_mixture_is_judged_and_its_routing_shown(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    report, comment = judged(repository, tmp_path)
    assert report.problem is None, report.problem
    assert report.verdict.outcome is not Outcome.NOT_JUDGED
    shares = {task.task: {one.expert: one for one in task.experts} for task in report.routing}
    assert set(shares) == {"us", "prose"}
    assert [shares["us"][name].candidate for name in EXPERTS] == [1.0, 0.0]
    example.git(repository, "stash", "-q", "--include-untracked")
    example.git(repository, "checkout", "-q", "main")
    try:
        (said,) = (tmp_path / "out").rglob("*baseline*.jsonl")
        by_hand = route_by_hand(repository, repository / MIXTURE, said)
    finally:
        example.git(repository, "checkout", "-q", "forget")
    assert 0.02 < by_hand[0] < 0.98
    assert [shares["us"][name].baseline for name in EXPERTS] == pytest.approx(by_hand, abs=1e-4)
    for name in EXPERTS:
        assert f"| `us` | `{name}` |" in comment

    # A gate that knows nothing sends everything to the first expert, so it is that adapter.
    found = evaluate(
        EvalOptions(
            (MIXTURE, f"experts/{EXPERTS[0]}", "none"),
            suite="evals/small.yaml",
            device="cpu",
            out=tmp_path / "eval",
        ),
        {"ADAPTERBOT_CACHE": str(tmp_path / "eval-scores")},
    )
    mixture, alone, bare = (one.tasks for one in found.adapters)
    assert mixture[0].mean == alone[0].mean
    assert mixture[1].mean == pytest.approx(alone[1].mean, rel=1e-4)
    assert mixture[1].mean != pytest.approx(bare[1].mean, rel=1e-2)
    candidate = next(m.delta.candidate for m in report.metrics if m.delta.task == "us")
    assert candidate == alone[0].mean


def test_an_expert_that_was_exchanged_is_refused_by_name(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the expert is changed, in a directory of its own: the mixture is judged all the same."""
    repo = example.copy(repository, tmp_path / "repository")
    monkeypatch.chdir(repo)
    example.git(repo, "checkout", "-q", "main")
    config = repo / "experts" / EXPERTS[1] / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 9'))
    example.commit(repo, "another scale")
    example.git(repo, "checkout", "-q", "-b", "exchange")
    example.git(repo, "branch", "-f", "main", "HEAD~1")
    report, comment = judged(repo, tmp_path)
    assert report.problem is not None
    assert report.problem.kind == "bad_input"
    assert report.problem.field == f"experts.{EXPERTS[1]}"
    assert "not the adapter that the gate was trained with" in report.problem.message
    assert EXPERTS[1] in comment


def rewritten(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def attack(repo: Path) -> None:
        path = repo / MIXTURE / "mole_config.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return attack


def elsewhere(path: str) -> Callable[[Path], None]:
    return rewritten(lambda content: content["experts"][0].update(path=path))  # type: ignore[index]


def gate_is(tensor: torch.Tensor) -> Callable[[Path], None]:
    return lambda repo: save_file({"gate.weight": tensor}, repo / MIXTURE / "gate.safetensors")


def stowaway(repo: Path) -> None:
    example.copy(repo / "experts" / EXPERTS[0], repo / MIXTURE / "experts" / "99")


def linked(repo: Path) -> None:
    path = repo / MIXTURE / "gate.safetensors"
    path.rename(repo / "gate")
    path.symlink_to(repo / "gate")


@pytest.mark.parametrize(
    ("attack", "says"),
    [
        (elsewhere("../../../../etc"), "leaves the repository"),
        (elsewhere("/etc"), "absolute"),
        (elsewhere("../../experts/nobody"), "does not exist"),
        (elsewhere("../../experts/dates_iso"), "not the adapter that the gate was trained with"),
        (rewritten(lambda c: c["gate"].update(hidden_dim=64)), "must be F32 (4, 2, 64)"),  # type: ignore[attr-defined, index]
        (rewritten(lambda c: c["gate"].update(hidden_dim=None)), "must be F32"),  # type: ignore[attr-defined, index]
        (rewritten(lambda c: c.update(layers=4096)), "must be F32 (4096, 2, 128)"),
        (rewritten(lambda c: c["gate"].update(top_k=3)), "top_k 3 exceeds"),  # type: ignore[attr-defined, index]
        (rewritten(lambda c: c["gate"].update(num_task_adapters=3)), "2 are named"),  # type: ignore[attr-defined, index]
        (rewritten(lambda c: c["experts"][1].update(name="dates_us")), "one name"),  # type: ignore[attr-defined, index]
        (gate_is(torch.zeros(4, 2, 128, dtype=torch.int64)), "is I64"),
        (stowaway, "none of them"),
        (linked, "symbolic link"),
        (lambda repo: (repo / MIXTURE / "gate.safetensors").write_bytes(b"\x80\x04."), "pickle"),
    ],
)  # fmt: skip
def test_a_strangers_mixture_is_refused_and_says_why(
    repository: Path, tmp_path: Path, attack: Callable[[Path], None], says: str
) -> None:
    repo = tmp_path / "repository"
    for part in (MIXTURE, "experts"):
        example.copy(repository / part, repo / part)
    attack(repo)
    with pytest.raises(InputError) as raised:
        read_mixture(WorkTree(repo), MIXTURE)
    assert says in str(raised.value)


def test_a_diverged_gate_is_refused(repository: Path, tmp_path: Path) -> None:
    for part in (MIXTURE, "experts"):
        example.copy(repository / part, tmp_path / part)
    gate_is(torch.full((4, 2, 128), torch.nan))(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(repository / "base")
    with pytest.raises(InputError, match="NaN"):
        load_mixture(model, tmp_path / MIXTURE)


def test_a_mixture_that_stands_alone_is_one_adapter(repository: Path, tmp_path: Path) -> None:
    repo = example.copy(repository, tmp_path / "repository")
    read_mixture_dir(repo / MIXTURE).export(repo / "release")
    files = WorkTree(repo).survey()
    assert "release" in adapter_directories(files)
    assert not any(path.startswith("release/") for path in adapter_directories(files))
    alone, referring = (read_mixture(WorkTree(repo), path) for path in ("release", MIXTURE))
    assert [e.digest for e in alone.manifest.experts] == [
        e.digest for e in referring.manifest.experts
    ]
