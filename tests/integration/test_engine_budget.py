"""A batch holds no more positions than its budget allows, counted where they are held."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterbot.eval import key_values
from adapterbot.eval.answers import Request, Sample
from adapterbot.eval.base_model import load_base
from adapterbot.eval.evaluation import Evaluation
from adapterbot.eval.local import LocalModel
from adapterbot.eval.settings import EngineSettings
from tests import tiny_suite
from tests.tiny_models import save_base


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many positions the keys of one layer have had room for at a time, whoever holds them."""
    layers: weakref.WeakSet[Any] = weakref.WeakSet()
    found: list[int] = []

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def count(layer: Any, *args: Any, **options: Any) -> Any:
            made = method(layer, *args, **options)
            layers.update(one for one in (layer, made) if isinstance(one, key_values._RoomyLayer))
            found.append(sum(one._keys[:, 0, :, 0].numel() for one in list(layers)))
            return made

        return count

    for name in ("update", "spread", "of"):
        method = counted(getattr(key_values._RoomyLayer, name))
        monkeypatch.setattr(key_values._RoomyLayer, name, method)
    return found


@pytest.mark.parametrize("kind", ["written", "in trees", "behind contexts", "drafted"])
def test_rows_that_share_a_stem_hold_no_more_than_the_budget(
    kind: str, held: list[int], tmp_path: Path
) -> None:
    """A stem is read once, but every row has a copy of its keys: they counted a quarter."""
    budget = 4000
    base = save_base("llama", tmp_path, num_hidden_layers=1, max_position_embeddings=1024)
    settings = EngineSettings(device="cpu", dtype="float32", token_budget=budget)
    model = LocalModel(load_base(base, settings), settings)
    stem = "x" * (100 if kind == "in trees" else 400)
    samples = tuple(
        Sample(id=str(i), prompt=f"{stem} {i}", expected="0", choices=("a b", "c d", "e f"))
        for i in range(40)
    )
    if kind in ("written", "drafted"):
        task = tiny_suite.task("t", "exact", Request.GENERATE, samples, max_new_tokens=8)
    else:
        task = tiny_suite.task("t", "multiple_choice", Request.CHOICES, samples)
    evaluation = Evaluation(model)
    answered = evaluation.evaluate([task], None)
    if kind == "drafted":
        held.clear()
        assert evaluation.evaluate([task], None, drafts=answered) == answered
    # The stem's own keys are there beside those of the rows.
    assert 0.8 * budget < max(held) <= budget + len(stem) + 2
