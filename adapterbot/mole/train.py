"""Training a gate: base and experts frozen, the loss on answers only, experts kept in use. (torch)

    loss = Σ −log p / (answer tokens of the step) + balance · (balance loss, mean over layers)
         + guide · (mean −log g_best over answers + ⅕ of that over prompts), mean over layers

The last term leads the way at the start: g_best is the gate's probability of the expert that
answers the token's row best alone. Without it a token learns only of the top-K experts that it
happens to be sent to, and never of the one that it should have been sent to. It takes the prompt's
tokens in: what the right expert makes of them is what its answer is made from, and what the gates
of later layers know the task by. They count for less: an early layer's gate cannot yet tell whose
they are, and would lose sight of the answers over it. It falls to nothing by the last step, so that
what the gate ends at is decided by the answers.

Sums are divided by what the whole step holds, not by each pass's own tokens, so that splitting a
step into passes (gradient accumulation) changes nothing but memory. The balance is a product of
means and is weighed by each pass's tokens. A run is a function of its seed: it can be killed at any
moment and goes on from its last checkpoint as if nothing had been.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapterbot.conversations import Example
from adapterbot.errors import OurFailure
from adapterbot.mole.config import Scheduler, TrainingPlan
from adapterbot.mole.examples import batches
from adapterbot.mole.gate import balance_loss
from adapterbot.mole.kernels import Routing
from adapterbot.mole.mixture import Mixture
from adapterbot.mole.preparation import Prepared
from adapterbot.mole.training_state import TrainingState
from adapterbot.mole.whitening import Whitened
from adapterbot.weights.likelihood import answer_nll, evaluate

# Of a prompt's tokens in the guiding loss, an answer's being 1.
_PROMPT_WEIGHT = 0.2


@dataclass(frozen=True)
class Progress:
    """How the training stands after a step.

    Attributes:
        loss: mean −log p of an answer token, over the step.
        balance: 1 for equal shares, up to the number of experts.
        entropy: of the gate's probabilities, in nats; log N when it knows nothing.
        validation: mean −log p on the held-out rows, where it was measured at this step.
    """

    step: int
    steps: int
    loss: float
    balance: float
    entropy: float
    validation: float | None = None


def fit(
    model: Any,
    mixture: Mixture,
    prepared: Prepared,
    validation: Sequence[Example],
    plan: TrainingPlan,
    *,
    pad: int,
    place: Path,
    fingerprint: str,
    progress: Callable[[Progress], None],
) -> float:
    """Trains the gate in place and leaves it at its best step on the held-out rows, at the last one
    where none are held out.

    Args:
        model: the base, with `mixture` attached.
        pad: the id that fills short rows.
        place: where checkpoints are kept; one that is there already is gone on from.
        fingerprint: of everything that decides the run; a checkpoint of another run is refused.
        progress: told after every step of the optimiser.

    Returns: mean −log p of an answer token on the held-out rows at that step; on the last training
        step where none are held out.

    Raises:
        InputError: `place` holds another run's checkpoint.
        OurFailure: the loss stopped being finite.
    """
    train, best = prepared.rows, prepared.best
    model.eval().requires_grad_(requires_grad=False)
    gate = mixture.gate.requires_grad_(requires_grad=True)
    white = Whitened(gate, prepared.moments)
    optimiser = torch.optim.Adam([white.weight], lr=plan.lr)
    state = TrainingState.restored(place, white.weight, optimiser, fingerprint)
    white.push()
    rows = plan.batch_size * plan.gradient_accumulation_steps
    steps = plan.epochs * math.ceil(len(train) / rows)
    for step, batch in islice(enumerate(_schedule(len(train), rows, plan)), state.step, steps):
        for group in optimiser.param_groups:
            group["lr"] = _rate(step, steps, plan)
        guide = plan.guide * (1.0 - step / steps)
        led = _Guide(guide, [best[at] for at in batch]) if best and guide else None
        done = _step(model, mixture, [train[at] for at in batch], plan, pad, led)
        white.pull()
        optimiser.step()
        white.push()
        state.step = step + 1
        measured = None
        if state.step % plan.eval_steps == 0 or state.step == steps:
            measured = evaluate(model, validation, plan.batch_size, pad=pad)
            # Losses of steps are of other rows each: the least is that of the easiest.
            if measured is None or measured <= state.best_loss:
                state.best = white.weight.detach().clone()
                state.best_loss = done[0] if measured is None else measured
            state.save(place, white.weight, optimiser)
        progress(Progress(state.step, steps, *done, measured))
    with torch.no_grad():
        white.weight.copy_(state.best)
    white.push()
    gate.requires_grad_(requires_grad=False)
    return state.best_loss


@dataclass(frozen=True)
class _Guide:
    """The weight of the guiding loss in a step, and the best expert of each of its rows."""

    weight: float
    best: Sequence[int]


def _step(
    model: Any,
    mixture: Mixture,
    examples: Sequence[Example],
    plan: TrainingPlan,
    pad: int,
    guide: _Guide | None,
) -> tuple[float, float, float]:
    """The gate's gradient over one step; its loss per token, balance and entropy."""
    tokens = sum(len(example.answer) for example in examples)
    positions = sum(example.length for example in examples)
    mixture.gate.zero_grad(set_to_none=True)
    loss = balance = entropy = 0.0
    for start in range(0, len(examples), plan.batch_size):
        part = examples[start : start + plan.batch_size]
        with mixture.recording() as record:
            each, mask, answers = answer_nll(model, part, pad)
        nll = each.sum()
        led = nll.new_zeros(())
        if guide:
            best = guide.best[start : start + plan.batch_size]
            written = answers / tokens
            read = _PROMPT_WEIGHT * (mask.bool() & ~answers) / (positions - tokens)
            led = guide.weight * _led(record.probabilities, written + read, best)
        evenness, spread = _gate_figures(record.probabilities, record.routings, mask)
        share = sum(example.length for example in part) / positions
        (nll / tokens + led + plan.balance * evenness * share).backward()
        loss += float(nll.detach()) / tokens
        balance += float(evenness.detach()) * share
        entropy += float(spread) * share
    if not math.isfinite(loss):
        raise OurFailure(
            "the loss is no longer finite", field="training.lr", fix="train with a smaller lr"
        )
    return loss, balance, entropy


def _gate_figures(
    probabilities: dict[int, list[Tensor]], routings: dict[int, list[Routing]], mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Balance loss and entropy over the real tokens, means over the layers."""
    real = mask.reshape(-1).bool()
    balance, entropy = [], []
    for layer, (p,) in probabilities.items():
        (routing,) = routings[layer]
        kept = p[real]
        balance.append(balance_loss(kept, Routing(routing.experts[real], routing.weights[real])))
        entropy.append(-torch.xlogy(kept.detach(), kept.detach()).sum(-1).mean())
    return torch.stack(balance).mean(), torch.stack(entropy).mean()


def _led(probabilities: dict[int, list[Tensor]], weights: Tensor, best: Sequence[int]) -> Tensor:
    """Σ −w log g_best over the tokens that have a weight, mean over the layers.

    Shapes: `weights` (rows, longest).
    """
    rows, at = weights.nonzero(as_tuple=True)
    wanted = torch.tensor(best, device=rows.device)[rows]
    found = []
    for (p,) in probabilities.values():
        said = p.view(*weights.shape, -1)[rows, at, wanted]
        found.append(-(weights[rows, at] * said.clamp_min(1e-9).log()).sum())
    return torch.stack(found).mean()


def _schedule(count: int, rows: int, plan: TrainingPlan) -> Iterator[list[int]]:
    for epoch in range(plan.epochs):
        yield from batches(count, rows, plan.seed, epoch)


def _rate(step: int, steps: int, plan: TrainingPlan) -> float:
    """The learning rate: a linear warm-up over the first `warmup_ratio`, then as scheduled."""
    warm = plan.warmup_ratio * steps
    if step < warm:
        return plan.lr * (step + 1) / (warm + 1)
    done = (step - warm) / max(1.0, steps - warm)
    left = {
        Scheduler.CONSTANT: 1.0,
        Scheduler.COSINE: 0.5 * (1.0 + math.cos(math.pi * done)),
        Scheduler.LINEAR: 1.0 - done,
    }
    return plan.lr * left[plan.scheduler]
