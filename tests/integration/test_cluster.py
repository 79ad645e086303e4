"""Actors that compute the engine's batches: the same digits, whoever dies on the way."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from adapterbot import TOOL
from adapterbot.commands.evaluator import engine as evaluators
from adapterbot.errors import InputError, OurFailure
from adapterbot.eval.engine import Engine
from adapterbot.eval.evaluation import Evaluation
from adapterbot.eval.settings import EngineSettings
from adapterbot.mole.artifact import read_mixture_dir
from adapterbot.mole.mixture import Mixture
from adapterbot.mole.saving import save_mixture
from adapterbot.records import TaskResult
from adapterbot.weights import load_adapter
from adapterbot.weights.mixture_config import GateConfig
from tests import tiny_suite
from tests.tiny_models import save_adapter

ray = pytest.importorskip("ray", reason="adapterbot[ray] is not installed")
joining = pytest.importorskip("adapterbot.eval.joining")
cluster = pytest.importorskip("adapterbot.eval.cluster")
pools = pytest.importorskip("adapterbot.eval.pool")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

# Small batches, so that there are many to share, and some to lose.
SETTINGS = EngineSettings(device="cpu", dtype="float32", token_budget=120)
TASKS = (tiny_suite.generate(40), tiny_suite.choices(20), tiny_suite.likelihoods(20))


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path | None]:
    root = tmp_path_factory.mktemp("adapters")
    made = [
        save_adapter(base, root / str(seed), seed=seed, r=4, target_modules=["q_proj", "v_proj"])
        for seed in range(2)
    ]
    return [None, *made]


@pytest.fixture(scope="module")
def here(base: Path, adapters: list[Path | None]) -> Iterator[dict[Path | None, object]]:
    """What one process says; drafts from the base, as in a gate."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with Engine(base, SETTINGS) as engine:
        plain = engine.evaluate(TASKS, None)
        yield {a: engine.evaluate(TASKS, a, drafts=plain if a else None) for a in adapters}
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def running(here: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster that was joined in a stranger's checkout."""
    checkout = tmp_path_factory.mktemp("checkout")
    (checkout / "transformers.py").write_text(f"open({str(checkout / 'ran')!r}, 'w')")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 2}')
        patch.chdir(checkout)
        joining.join("local")
    assert signal.getsignal(signal.SIGTERM) == before, "or no gate could report that it was ended"
    yield checkout
    ray.shutdown()


@pytest.fixture(scope="module")
def many(base: Path, running: None) -> Iterator[Evaluation]:
    with Evaluation(cluster.ClusterModel(base, SETTINGS, "local")) as evaluation:
        yield evaluation


def drafts(here: dict[Path | None, tuple[TaskResult, ...]], adapter: Path | None):
    return here[None] if adapter else None


def take_a_processor() -> object:
    """An actor that has one of them, as another job on the cluster would."""

    class Other:  # in here, since an actor imports this module for a class of its own
        def here(self) -> None:
            """It runs."""

    other = ray.remote(num_cpus=1)(Other).remote()
    ray.get(other.here.remote(), timeout=60)
    return other


def test_a_base_that_cannot_be_loaded_is_said_as_here(tmp_path: Path, running: None) -> None:
    # One worker on both processors, which it must give back to what follows.
    torch.set_num_threads(2)
    try:
        with pytest.raises(InputError, match="base"):
            cluster.ClusterModel(tmp_path, SETTINGS, "local")
    finally:
        torch.set_num_threads(1)


def loads_nothing() -> type:
    class Worker:  # in here, as above
        def load(self, threads: int) -> SimpleNamespace:
            return SimpleNamespace(identity="a base", tool=TOOL)

    return Worker


def test_workers_of_another_version_are_refused(running, monkeypatch) -> None:
    """They may compute otherwise, and their answers would be cached as ours."""
    monkeypatch.setattr(pools, "TOOL", "adapterbot 0.0.0")
    with pytest.raises(InputError, match=r"--ray: has adapterbot .* and this is .* 0\.0\.0"):
        pools.Pool(loads_nothing(), SETTINGS, "local")


def test_a_worker_that_is_lost_otherwise_than_by_its_death_is_replaced(running, caplog) -> None:
    """By Ray's memory monitor, say, whose error is of another kind: it was waited for for ever."""
    pool = pools.Pool(loads_nothing(), SETTINGS, "local")
    ended = ray.remote(num_cpus=0)(lambda: time.sleep(60)).remote()
    ray.cancel(ended, force=True)
    asked: list[Any] = []

    def ask(actor: Any) -> Any:
        asked.append(actor)
        return ended if len(asked) == 1 else ray.put("an answer")

    assert pool.ask(ask) == "an answer"
    assert "a worker of the cluster is lost, and replaced" in caplog.text
    assert asked[0] not in pool.actors
    assert len(pool.actors) == 2
    pool.close()


def test_the_same_digits_as_one_process(many, here, adapters) -> None:
    for adapter in (*adapters, adapters[1]):
        got = many.evaluate(TASKS, adapter, drafts=drafts(here, adapter))
        assert got == here[adapter]
    assert len(many._model.pool.actors) == 2
    assert many.stats().device.startswith("2 × cpu")
    assert many.stats().dtype == "float32"


def test_attack_a_module_in_the_checkout_runs_on_no_worker(many, running) -> None:
    """Attack: Ray puts the driver's current directory before the standard library in a worker."""
    assert not (running / "ran").exists()


def test_what_ray_says_of_the_cluster_is_no_result(running, capsys, caplog) -> None:
    """It printed to standard output, where a JSON document stands alone."""
    client = ray._private.worker.global_worker.gcs_client
    ray._private.utils.publish_error_to_driver("node", "a node died", gcs_client=client)
    until = time.monotonic() + 30
    while "a node died" not in caplog.text:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert capsys.readouterr().out == ""


def test_an_address_at_which_nobody_answers_is_soon_known() -> None:
    """Ray tried for many minutes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(InputError, match=f"no Ray cluster .* at '{address}': .*refused"):
        joining.join(address)


def test_a_mixture_answers_and_shares_as_in_one_process(many, base, adapters, tmp_path) -> None:
    places = {path.name: path for path in adapters if path}
    model = AutoModelForCausalLM.from_pretrained(base)
    experts = {name: load_adapter(path) for name, path in places.items()}
    with Mixture(model, experts, GateConfig(num_task_adapters=2), seed=3) as made:
        save_mixture(tmp_path / "mixture", made, places, base_model=str(base))
    mixture = read_mixture_dir(tmp_path / "mixture")
    answered = [(sample, "abc") for sample in TASKS[0].samples[:5]]
    with Engine(base, SETTINGS) as engine:
        alone, shares = engine.evaluate(TASKS, mixture), engine.shares(mixture, answered)
    assert many.evaluate(TASKS, mixture) == alone
    assert many.shares(mixture, answered) == pytest.approx(shares, abs=1e-6)
    assert many.evaluate(TASKS, mixture) == alone, "and nothing stays behind"


def test_a_worker_that_dies_loses_nothing(many, here, adapters) -> None:
    pool = many._model.pool
    doomed = list(pool.actors)
    killed: list[object] = []

    def kill(done: int, total: int) -> None:
        if not killed and done >= total // 4:
            killed.append(doomed[0])
            ray.kill(doomed[0])

    got = many.evaluate(TASKS, adapters[2], drafts=drafts(here, adapters[2]), progress=kill)
    assert killed
    assert got == here[adapters[2]]
    again = many.evaluate(TASKS, None)
    assert again == here[None]
    assert doomed[0] not in pool.actors
    assert len(pool.actors) == 2


def test_work_goes_on_without_a_worker_for_which_there_is_no_place(many, here, caplog) -> None:
    pool = many._model.pool
    pool._comes_up = 2.0
    ray.kill(pool.actors[0])
    taken = take_a_processor()
    assert many.evaluate(TASKS, None) == here[None]
    until = time.monotonic() + 60
    while len(pool.actors) == 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert many.evaluate(TASKS, None) == here[None]
    assert "did not come up in 2 s; 1 of them go on" in caplog.text
    ray.kill(taken)


def test_a_cluster_on_which_nobody_has_a_place_is_our_failure(
    many, base, monkeypatch, tmp_path
) -> None:
    monkeypatch.setattr(pools, "COMES_UP_SECONDS", 1.0)
    taken = take_a_processor()
    with pytest.raises(OurFailure, match="no worker of the cluster came up in 1 s"):
        cluster.ClusterModel(base, SETTINGS, "local")
    ray.kill(taken)


def test_a_cluster_on_which_everybody_dies_is_our_failure(many) -> None:
    pool = many._model.pool
    pool._losses_left = 0
    for actor in list(pool.actors):
        ray.kill(actor)
    with pytest.raises(OurFailure, match="died"):
        many.evaluate(TASKS, None)


def test_no_server_and_cluster_at_once() -> None:
    from adapterbot.config import Server

    with pytest.raises(InputError, match="with a server"):
        evaluators(SETTINGS, {}, server=Server(url="http://h/v1"), ray="local")


def test_gpus_that_are_all_too_small_teach_the_same_lesson_once() -> None:
    """Two batches wait for each of them when the first fails."""
    batcher = cluster._ManyBatcher(80, "cpu", lanes=8)

    def compute(batch: list[int]) -> list[int]:
        if len(batch) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch

    list(batcher.run(dict.fromkeys(range(200), 10), lambda length: length, compute))
    assert batcher.budget == 40


@pytest.mark.parametrize(
    ("nodes", "device", "share", "count"),
    [
        ([{"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 1}, {}], "auto", {"num_gpus": 1}, 3),
        ([{"CPU": 8, "GPU": 1}], "cpu", {"num_cpus": 4}, 2),
        ([{"CPU": 3}, {"CPU": 3}], "auto", {"num_cpus": 3}, 2),  # 4 would fit nowhere
        ([{"CPU": 6}, {"CPU": 6}], "auto", {"num_cpus": 4}, 2),  # of 12 // 4 one would wait
        ([{}], "auto", {"num_gpus": 1}, 1),
        ([{}], "cpu", {"num_cpus": 4}, 1),
    ],
)
def test_a_worker_takes_what_a_node_has(nodes, device, share, count) -> None:
    assert pools.places(nodes, device, threads=4) == (share, count)


def test_a_worker_has_no_gpu_of_another_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray shows each its own alone, as `cuda:0`; no cluster is started to say so."""
    joined: list[str] = []
    monkeypatch.setattr(pools, "join", joined.append)
    monkeypatch.setattr(pools.ray, "is_initialized", lambda: False)
    with pytest.raises(InputError, match=r"engine\.device: is cuda:1, and a cluster"):
        pools.Pool(object, EngineSettings(device="cuda:1"), "local")
    assert not joined
