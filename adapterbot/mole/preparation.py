"""What a gate's training looks up in its rows before it begins. (torch)"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapterbot.conversations import Example
from adapterbot.errors import InputError
from adapterbot.mole.config import TrainingPlan
from adapterbot.mole.mixture import Mixture
from adapterbot.mole.whitening import SecondMoments
from adapterbot.weights.likelihood import answer_nll


@dataclass(frozen=True)
class Prepared:
    """What was found.

    Attributes:
        rows: those with an answer, which are trained on.
        moments: `second_moments` of them.
        best: `best_alone` of each; None without a guiding loss.
    """

    rows: Sequence[Example]
    moments: Tensor
    best: Sequence[int] | None


@dataclass(frozen=True)
class Reading:
    """Rows to be read by a model with a mixture on it.

    Attributes:
        size: rows of one forward pass.
        pad: the id that fills short rows.
        tick: called after each pass.
    """

    model: Any
    mixture: Mixture
    rows: Sequence[Example]
    size: int
    pad: int
    tick: Callable[[], None] = lambda: None

    def batches(self) -> Iterator[Sequence[Example]]:
        """The rows of one pass after another."""
        for start in range(0, len(self.rows), self.size):
            yield self.rows[start : start + self.size]


def prepare(
    model: Any,
    mixture: Mixture,
    train: Sequence[Example],
    plan: TrainingPlan,
    *,
    pad: int,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Prepared:
    """Reads the rows once, and once more under each expert alone where the loss is guided.

    Args:
        model: the base, with `mixture` attached.
        progress: told how many of how many passes are done.

    Raises:
        InputError: no row can be trained on.
    """
    rows = [example for example in train if example.answer]
    if not rows:
        raise InputError("holds no row to train on", field="data.train", fix="add rows")
    model.eval()
    total = math.ceil(len(rows) / plan.batch_size) * (1 + len(mixture.names) * bool(plan.guide))
    done = iter(range(1, total + 1))
    reading = Reading(
        model, mixture, rows, plan.batch_size, pad, lambda: progress(next(done), total)
    )
    moments = second_moments(reading)
    return Prepared(rows, moments, best_alone(reading) if plan.guide else None)


@torch.inference_mode()
def second_moments(reading: Reading) -> Tensor:
    """E[x xᵀ] of what the gate reads before every layer, (layers, width, width), fp32: over the
    tokens of all rows, routed as the gate stands."""
    found = SecondMoments()
    for part in reading.batches():
        with reading.mixture.recording() as record:
            _, mask, _ = answer_nll(reading.model, part, reading.pad)
        real = mask.reshape(-1).bool()
        found.add([x[real] for (x,) in record.hidden.values()])
        reading.tick()
    return found.means()


@torch.inference_mode()
def best_alone(reading: Reading) -> list[int]:
    """The expert under which each row's answer is likeliest, every token of it sent there."""
    found: list[int] = []
    for part in reading.batches():
        losses = []
        for expert in range(len(reading.mixture.names)):
            with reading.mixture.alone(expert):
                losses.append(answer_nll(reading.model, part, reading.pad)[0].sum(dim=1))
            reading.tick()
        found += torch.stack(losses).argmin(dim=0).tolist()
    return found
