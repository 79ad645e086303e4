"""A population spread over actors: the same scores, whoever dies on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from adapterbot.commands.merge_scores import SuiteScores
from adapterbot.eval.base_model import load_base
from adapterbot.eval.blends import BlendedModel
from adapterbot.eval.settings import EngineSettings
from adapterbot.eval.suite import load_suite
from adapterbot.files.tree import WorkTree
from adapterbot.merge.race import Failed
from adapterbot.weights import load_adapter
from tests.example import EXAMPLE

ray = pytest.importorskip("ray", reason="adapterbot[ray] is not installed")
merge_cluster = pytest.importorskip("adapterbot.commands.merge_cluster")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

SETTINGS = EngineSettings(device="cpu", dtype="float32")
BASE = str(EXAMPLE / "base")
ADAPTERS = [load_adapter(EXAMPLE / "experts" / n) for n in ("dates_eu", "dates_us", "dates_iso")]
TASKS = load_suite(WorkTree(EXAMPLE), "evals/suite.yaml").tasks
CANDIDATES = [np.array([row]) for row in np.random.default_rng(0).dirichlet(np.ones(3), 5)]
ITEMS = list(range(0, 300, 5))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    files = [adapter.files for adapter in ADAPTERS]
    torch.set_num_threads(1)
    scores = merge_cluster.ClusterScores(BASE, SETTINGS, files, ((),), TASKS, "local")
    yield scores
    scores.close()
    ray.shutdown()


@pytest.fixture(scope="module")
def here() -> list[Any]:
    model = BlendedModel(load_base(BASE, SETTINGS), SETTINGS, ADAPTERS, ((),))
    scores = SuiteScores(model, TASKS)
    found = scores.scores(CANDIDATES, ITEMS)
    scores.close()
    return found


def test_the_same_scores_as_in_one_process(cluster: Any, here: list[Any]) -> None:
    assert len(cluster.pool.actors) == 2
    for one, other in zip(cluster.scores(CANDIDATES, ITEMS), here, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_worker_that_dies_loses_nothing(cluster: Any, here: list[Any]) -> None:
    victim = cluster.pool.actors[0]

    def kill() -> None:
        time.sleep(0.2)
        ray.kill(victim)

    threading.Thread(target=kill).start()
    found = cluster.scores(CANDIDATES, ITEMS)
    for one, other in zip(found, here, strict=True):
        np.testing.assert_array_equal(one, other)
    again = cluster.scores(CANDIDATES[:1], ITEMS)
    np.testing.assert_array_equal(again[0], here[0])
    assert victim not in cluster.pool.actors


def test_a_candidate_that_fails_says_why(cluster: Any) -> None:
    good, bad = cluster.scores([CANDIDATES[0], np.array([[np.nan] * 3])], ITEMS[:16])
    assert not isinstance(good, Failed)
    # A blend of NaN answers nonsense or nothing; either way it takes no other candidate along.
    assert isinstance(bad, Failed) or np.isfinite(bad).all()
