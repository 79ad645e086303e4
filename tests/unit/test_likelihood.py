"""−log p of answers, of which a vocabulary's logits are wanted for few positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM

from adapterbot.conversations import Example
from adapterbot.weights.likelihood import answer_nll
from tests.tiny_models import VOCABULARY, save_base


class Widest(TorchDispatchMode):
    """The most numbers of a float32 tensor that was made inside."""

    numbers = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, torch.Tensor) and one.dtype == torch.float32:
                self.numbers = max(self.numbers, one.numel())
        return made


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_only_what_is_asked_is_widened(tmp_path: Path) -> None:
    base = save_base("llama", tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    examples = [Example(tuple(range(40)), (7, 8)), Example((3,), tuple(range(9, 15)))]
    with Widest() as widest:
        nll, mask, answers = answer_nll(model, examples, 0)
        nll.sum().backward()
    assert widest.numbers < mask.numel() * VOCABULARY / 4
    for row, example in enumerate(examples):
        ids = torch.tensor([[*example.prompt, *example.answer]])
        logits = model(input_ids=ids).logits[0, :-1].float()
        alone = -logits.log_softmax(-1)[torch.arange(ids.shape[1] - 1), ids[0, 1:]]
        where = answers[row, :-1]
        assert where.sum() == len(example.answer)
        torch.testing.assert_close(
            nll[row][where], alone[-len(example.answer) :], rtol=0.02, atol=0
        )
        assert not nll[row][~where].any()
