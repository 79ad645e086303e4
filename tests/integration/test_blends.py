"""Several blends of adapters in one batch answer as each of them alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapterbot.commands.merge_scores import SuiteScores
from adapterbot.eval.answers import Answer
from adapterbot.eval.base_model import load_base
from adapterbot.eval.blends import BlendedModel
from adapterbot.eval.questions import Question
from adapterbot.eval.settings import EngineSettings
from adapterbot.eval.suite import Task
from adapterbot.merge.race import Failed
from adapterbot.weights import load_adapter
from adapterbot.weights.layers import layer_groups
from tests import tiny_suite
from tests.tiny_models import save_adapter, save_base

SETTINGS = EngineSettings(device="cpu", dtype="float32", token_budget=400)
WEIGHTS = np.random.default_rng(0).normal(size=(3, 2, 2))
HEADER = "the thing is in the bin and this is a thin inn " * 2


def headed(task: Task) -> Task:
    """The task behind a header that all its samples share, long enough to be read once."""
    samples = tuple(one.model_copy(update={"prompt": HEADER + one.prompt}) for one in task.samples)
    return task.model_copy(update={"samples": samples})


TASKS = (
    tiny_suite.generate(12),
    headed(tiny_suite.generate(8, name="headed", seed=5)),
    tiny_suite.choices(6),
    tiny_suite.likelihoods(6),
)


def blended(folder: Path, kind: str = "llama", **options: Any) -> BlendedModel:
    targets = {"llama": ["q_proj", "down_proj"], "gpt2": ["c_attn", "c_fc"]}[kind]
    base = save_base(kind, folder / "base")
    options = {"target_modules": targets, **options}
    adapters = [
        load_adapter(save_adapter(base, folder / str(seed), seed=seed, r=2 + seed, **options))
        for seed in (1, 2)
    ]
    groups = layer_groups({module for one in adapters for module in one.updates}, 2)
    return BlendedModel(load_base(str(base), SETTINGS), SETTINGS, adapters, groups)


@pytest.fixture(params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlendedModel]:
    made = blended(tmp_path, request.param)
    yield made
    made.close()


def answers(model: BlendedModel, variants: int) -> list[dict[str, Answer]]:
    questions = [
        Question(task, sample, variant=variant)
        for variant in range(variants)
        for task in TASKS
        for sample in task.samples
    ]
    found: list[dict[str, Answer]] = [{} for _ in range(variants)]
    with torch.inference_mode(), model.under(None, ""):
        for index, answer in model.answers(questions):
            assert isinstance(answer, Answer)
            question = questions[index]
            found[question.variant][f"{question.task.name} {question.sample.id}"] = answer
    return found


def test_rows_of_a_batch_are_under_different_blends(model: BlendedModel) -> None:
    assert model.side_by_side
    model.blend(*WEIGHTS.tolist())
    together = answers(model, len(WEIGHTS))
    for weights, got in zip(WEIGHTS.tolist(), together, strict=True):
        model.blend(weights)
        (alone,) = answers(model, 1)
        assert got.keys() == alone.keys()
        for name, answer in got.items():
            assert answer.token_ids == alone[name].token_ids, name
            assert answer.loglikelihoods == pytest.approx(alone[name].loglikelihoods, abs=1e-4)
    texts = [tuple(answer.text for answer in one.values()) for one in together]
    assert len(set(texts)) == len(WEIGHTS), "blends that answer alike would show nothing"


def test_one_that_fails_takes_no_other_along(model: BlendedModel) -> None:
    scores = SuiteScores(model, TASKS[2:3])
    items = range(len(TASKS[2].samples))
    (good, bad) = scores.scores([WEIGHTS[0], np.full_like(WEIGHTS[0], np.nan)], items)
    (alone,) = scores.scores([WEIGHTS[0]], items)
    assert isinstance(bad, Failed)
    np.testing.assert_array_equal(good, alone)


def test_an_adapted_head_is_asked_one_blend_at_a_time(tmp_path: Path) -> None:
    """The head sees chosen positions of all rows in a line, so gains by row would be misread."""
    model = blended(tmp_path, target_modules=["q_proj", "lm_head"])
    assert not model.side_by_side
    scores = SuiteScores(model, TASKS[:1])
    items = range(len(TASKS[0].samples))
    found = scores.scores([WEIGHTS[0], WEIGHTS[1]], items)
    assert not any(isinstance(one, Failed) for one in found)
    model.close()
