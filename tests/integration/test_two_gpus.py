"""A base spread over two GPUs says what it says in one place, whatever is put on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from adapterbot.bank.attached import attach_bank
from adapterbot.bank.soup import VectorBank
from adapterbot.eval.base_model import load_base
from adapterbot.eval.evaluation import Ask, Evaluation
from adapterbot.eval.local import LocalModel
from adapterbot.eval.settings import EngineSettings
from adapterbot.mole.artifact import read_mixture_dir
from adapterbot.mole.mixture import Mixture
from adapterbot.mole.saving import save_mixture
from adapterbot.records import TaskResult
from adapterbot.weights import load_adapter, read_adapter_dir
from adapterbot.weights.mixture_config import GateConfig
from tests import tiny_suite
from tests.bank_worlds import QV, bank_of, load, save_user, vera_bank
from tests.tiny_models import save_adapter, save_base
from tests.two_gpus import TwoGpus, spread

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

SETTINGS = EngineSettings(device="cpu", dtype="float32", token_budget=400)
PLACES = {
    "model.embed_tokens": "cuda:0",
    "model.rotary_emb": "cuda:0",
    "model.layers.0": "cuda:0",
    "model.layers.1": "cuda:1",
    "model.norm": "cuda:1",
    "lm_head": "cuda:1",
}
# Tied to the embedding it lies with it.
TIED = {**PLACES, "lm_head": "cuda:0"}
BEGUN = "the thin inn is a bin with then and this thing in the inn " * 2

KINDS: dict[str, dict[str, Any]] = {
    "linear": {"target_modules": "all-linear"},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "whole": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "dora": {"use_dora": True},
}


def shared(task: Any) -> Any:
    """The samples behind what is worth reading once."""
    samples = tuple(
        one.model_copy(update={"prompt": BEGUN + one.prompt[:40]}) for one in task.samples
    )
    changes = {"name": f"{task.name} shared", "samples": samples, "digest": f"{task.digest} shared"}
    return task.model_copy(update=changes)


TASKS = (
    tiny_suite.generate(8),
    tiny_suite.generate(4, name="drawn", temperature=1.0, top_p=0.9),
    shared(tiny_suite.generate(5)),
    tiny_suite.choices(5),
    shared(tiny_suite.choices(4)),
    tiny_suite.likelihoods(4),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    base = save_base("llama", root / "base")
    for seed, (kind, options) in enumerate(KINDS.items()):
        save_adapter(base, root / kind, seed=seed, r=4, **options)
    save_adapter(base, root / "other", seed=9, r=2)
    paths = {name: root / name for name in ("linear", "other")}
    experts = {name: load_adapter(path) for name, path in paths.items()}
    config = GateConfig(num_task_adapters=2, top_k=1)
    with Mixture(load_base(base, SETTINGS).model, experts, config) as mixture:
        save_mixture(root / "mixture", mixture, paths, base_model=str(base))
    return root


@pytest.fixture(scope="module")
def here(made: Path) -> Evaluation:
    return Evaluation(LocalModel(load_base(made / "base", SETTINGS), SETTINGS))


@pytest.fixture(params=["apart", "tied"])
def there(
    made: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Evaluation]:
    monkeypatch.setattr("adapterbot.weights.expansion._able", lambda _: False)
    monkeypatch.setattr("torch.cuda.get_device_name", str)
    base = load_base(made / "base", SETTINGS)
    device = property(lambda _: torch.device("cuda:0"))
    monkeypatch.setattr(type(base.model), "device", device)
    with TwoGpus():
        spread(base.model, PLACES if request.param == "apart" else TIED)
        yield Evaluation(LocalModel(replace(base, device=torch.device("cuda:0")), SETTINGS))


def said(results: tuple[TaskResult, ...]) -> list[Any]:
    samples = [sample for result in results for sample in result.samples]
    return [
        (one.sample_id, one.output, one.missing, one.score and round(one.score, 3))
        for one in samples
    ]


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_adapters(made: Path, here: Evaluation, there: Evaluation, kind: str | None) -> None:
    adapter = made / kind if kind else None
    assert said(there.evaluate(TASKS, adapter)) == said(here.evaluate(TASKS, adapter))


def test_rows_under_adapters_of_their_own(made: Path, here: Evaluation, there: Evaluation) -> None:
    adapters = [read_adapter_dir(made / name) for name in ("linear", "other")]
    asks = [
        Ask(task, adapter, [sample.id for sample in task.samples])
        for task in TASKS
        for adapter in adapters
    ]
    assert said(there.evaluate_together(asks)) == said(here.evaluate_together(asks))


def test_mixtures(made: Path, here: Evaluation, there: Evaluation) -> None:
    files = read_mixture_dir(made / "mixture")
    assert said(there.evaluate(TASKS, files)) == said(here.evaluate(TASKS, files))
    answered = [(TASKS[0].samples[0], "this thing")]
    assert there.shares(files, answered) == pytest.approx(here.shares(files, answered))


@pytest.mark.parametrize("kind", ["vera", "vblora", "soup"])
def test_banks(made: Path, there: Evaluation, tmp_path: Path, kind: str) -> None:
    """Rows lie in one place, and the modules that they act on in several."""
    base, names = made / "base", ["u0", "u1"]
    users = [*names, None]
    bank: Any = tmp_path / "bank"
    if kind == "vera":
        vera_bank(base, bank, 2).close()
    elif kind == "vblora":
        options: dict[str, Any] = {"num_vectors": 8, "vector_length": 4, "r": 2, "topk": 2}
        config = peft.VBLoRAConfig(target_modules=QV, **options)
        saved = {name: save_user(base, tmp_path / name, config, int(name[1])) for name in names}
        bank_of(base, bank, saved).close()
    else:
        vectors = {name: [float(int(name[1]) + 1)] * 32 for name in names}
        bank = VectorBank(name="b", base_model=str(base), entries=vectors, projection_seed=9)
    ids = torch.tensor([[3, 4, 5, 6]] * 3)
    assert isinstance(there._model, LocalModel)
    model = there._model.base.model
    with torch.no_grad():
        with attach_bank(load(base), bank) as attached, attached.tenants(users):
            expected = attached._model(input_ids=ids).logits
        with attach_bank(model, bank) as attached:
            for chosen in (users, users[::-1]):
                with attached.tenants(chosen):
                    got = model(input_ids=ids.to("cuda:0")).logits.cpu()
                order = [users.index(user) for user in chosen]
                torch.testing.assert_close(got, expected[order], rtol=1e-4, atol=1e-4)
