"""Several adapters in the same batches answer as each of them alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapterbot.errors import InputError
from adapterbot.eval.cache import ScoreCache
from adapterbot.eval.engine import Engine, WaitingModel
from adapterbot.eval.evaluation import Ask
from adapterbot.eval.questions import digest_of
from adapterbot.eval.settings import EngineSettings
from adapterbot.weights.peft_dir import AdapterFiles, read_adapter_dir
from tests import tiny_suite
from tests.tiny_models import save_adapter, save_base

SETTINGS = EngineSettings(device="cpu", dtype="float32", token_budget=400)
TASKS = (tiny_suite.generate(12), tiny_suite.choices(6), tiny_suite.likelihoods(6))
TARGETS = {
    "llama": ["q_proj", "down_proj"],
    "gpt2": ["c_attn", "c_fc"],
    "opt": ["q_proj", "fc1"],
    "qwen2_moe": ["q_proj", "shared_expert.down_proj"],
}
# Their feed-forward layers, or shared experts, see the tokens of all rows in one.
ROWLESS = {
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "qwen2_moe": {
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    },
}


def world(folder: Path, kind: str, *special: dict[str, Any]) -> tuple[Path, list[AdapterFiles]]:
    """A base, and adapters of different ranks; the first ones are of a `special` kind."""
    base = save_base(kind, folder / "base", **ROWLESS.get(kind, {}))
    options = [*special, *[{}] * (3 - len(special))]
    return base, [
        read_adapter_dir(
            save_adapter(
                base,
                folder / str(seed),
                seed=seed,
                r=2 + seed,
                **{"target_modules": TARGETS[kind], **options[seed]},
            )
        )
        for seed in range(3)
    ]


def asks(adapters: list[AdapterFiles]) -> list[Ask]:
    """Every task of every adapter, other samples of each; the first adapter is asked twice."""
    found = [
        Ask(task, files, [sample.id for sample in task.samples[place::2]])
        for place, files in enumerate(adapters)
        for task in TASKS
    ]
    return [*found, Ask(TASKS[0], adapters[0], [TASKS[0].samples[1].id])]


def alone(engine: Engine, asked: list[Ask]) -> list[Any]:
    return [
        engine.evaluate([ask.task], ask.adapter, samples={ask.task.name: ask.samples})[0]
        for ask in asked
    ]


def same(found: Any, expected: Any) -> None:
    for one, other in zip(found, expected, strict=True):
        assert [s.sample_id for s in one.samples] == [s.sample_id for s in other.samples]
        assert [s.output for s in one.samples] == [s.output for s in other.samples]
        scores = [s.score for s in one.samples]
        assert scores == pytest.approx([s.score for s in other.samples], rel=1e-4, abs=1e-4)


def assert_asked_one_by_one(base: Path, adapters: list[AdapterFiles]) -> None:
    asked = asks(adapters)
    with Engine(base, SETTINGS) as engine:
        model = engine._model
        assert isinstance(model, WaitingModel)
        assert model.by_row({digest_of(one): one for one in adapters}) is None
        same(engine.evaluate_together(asked), alone(engine, asked))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_rows_under_several_adapters_say_what_each_says_alone(kind: str, tmp_path: Path) -> None:
    base, adapters = world(tmp_path, kind)
    asked = asks(adapters)
    with Engine(base, SETTINGS) as engine:
        drafts = engine.evaluate(TASKS, adapters[2])
        bare = engine.evaluate(TASKS, None)
        expected = alone(engine, asked)
        assert len({result.samples[0].output for result in expected}) > 3
        same(engine.evaluate_together(asked, drafts=drafts), expected)
        same(engine.evaluate_together(asked), expected)
        same(alone(engine, asked), expected)
        same(engine.evaluate(TASKS, None), bare)


@pytest.mark.parametrize(
    "special",
    [
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj", "lm_head"]},
    ],
)
def test_what_rows_cannot_differ_in_is_asked_one_by_one(
    special: dict[str, Any], tmp_path: Path
) -> None:
    assert_asked_one_by_one(*world(tmp_path, "llama", special))


@pytest.mark.parametrize("kind", ROWLESS)
def test_a_model_that_flattens_its_batch_is_asked_one_by_one(kind: str, tmp_path: Path) -> None:
    assert_asked_one_by_one(*world(tmp_path, kind))


def test_what_was_answered_together_is_kept_for_each(tmp_path: Path) -> None:
    base, adapters = world(tmp_path, "llama")
    asked = asks(adapters)
    cache = ScoreCache(tmp_path / "scores")
    with Engine(base, SETTINGS, cache=cache) as engine:
        found = engine.evaluate_together(asked)
        before = engine.cached
        assert before == 0
        assert alone(engine, asked) == list(found)
        assert engine.evaluate_together(asked) == found
        assert engine.cached == 2 * sum(len(ask.samples) for ask in asked)


def test_an_adapter_that_does_not_fit_spoils_no_other(tmp_path: Path) -> None:
    base, adapters = world(tmp_path, "llama")
    (tmp_path / "narrow").mkdir()
    other = save_base("llama", tmp_path / "narrow" / "base", hidden_size=64)
    files = read_adapter_dir(
        save_adapter(other, tmp_path / "misfit", target_modules=TARGETS["llama"])
    )
    with Engine(base, SETTINGS) as engine:
        expected = alone(engine, asks(adapters))
        with pytest.raises(InputError):
            engine.evaluate_together([*asks(adapters), Ask(TASKS[0], files, ["0"])])
        same(engine.evaluate_together(asks(adapters)), expected)
