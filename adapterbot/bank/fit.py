"""Many users' vectors fitted at once over one frozen base. (torch)

Rows of a batch belong to different users, and a user's loss touches nobody else's row; so users
share every pass and nothing else. Each has its own count of steps, its own Adam moments and its own
early stopping, joins when there is room and leaves when it is done: who else is being fitted does
not change what it becomes, and a run that was stopped goes on with whoever is left.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from adapterbot.bank.manifest import Layout, VbLoraLayout, VeraLayout
from adapterbot.bank.plan import Plan
from adapterbot.bank.surfaces import surface_of
from adapterbot.conversations import Example
from adapterbot.errors import InputError
from adapterbot.files import atomic, there
from adapterbot.weights.likelihood import answer_nll

D_INITIAL = 0.1  # arXiv 2310.11454 table 6c: small values do best; Λ_b starts at zero
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8
_TENSORS = ("row", "first", "second", "best")


@dataclass
class Fit:
    """One user under way. Tensors are rows of `floats` numbers in fp32.

    `first` and `second` are Adam's moments; `best` is the row with the least held-out loss.
    """

    user: str
    row: Tensor
    first: Tensor
    second: Tensor
    best: Tensor
    step: int = 0
    base_loss: float = float("nan")
    best_loss: float = float("inf")
    best_step: int = 0
    worse: int = 0
    train: list[Example] = field(default_factory=list, repr=False)
    held_out: list[Example] = field(default_factory=list, repr=False)


def split(
    examples: Sequence[Example], plan: Plan, user: str
) -> tuple[list[Example], list[Example]]:
    """A user's examples to learn from and to hold out, those of one prompt on one side; one prompt
    alone is both."""
    asked: dict[tuple[int, ...], list[Example]] = {}
    for example in examples:
        asked.setdefault(example.prompt, []).append(example)
    rows = list(asked.values())
    random.Random(f"{plan.seed}/{user}").shuffle(rows)  # noqa: S311 no secret
    count = min(len(rows) - 1, max(1, round(plan.held_out * len(rows))))
    if count < 1:
        return list(examples), list(examples)
    return list(chain.from_iterable(rows[count:])), list(chain.from_iterable(rows[:count]))


class Fitter:
    """A frozen model, and the users who are being fitted over it. A context manager."""

    def __init__(
        self, model: Any, layout: Layout, shared: Mapping[str, Tensor], plan: Plan, pad: int
    ) -> None:
        """Hooks the bank's layout to the model.

        Raises:
            InputError: the bank was not made for this model, or is VB-LoRA's kind.
        """
        if isinstance(layout, VbLoraLayout):
            raise InputError(
                "are chosen from a trained bank of vectors, which is not fitted per user",
                field="VB-LoRA's rows",
                fix="fit a VeRA bank, or import adapters that PEFT trained",
            )
        parameter = next(model.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype
        placed = {n: tensor.to(self._device, self._dtype) for n, tensor in shared.items()}
        self._surface: Any = surface_of(model, layout, placed)
        self._model = model
        self._plan = plan
        self._pad = pad
        self._start = _initial(layout)
        self.active: list[Fit] = []

    def __enter__(self) -> Fitter:
        return self

    def __exit__(self, *_: object) -> None:
        self._surface.clear()
        self._surface.close()

    def join(self, user: str, examples: Sequence[Example], begun: Fit | None = None) -> None:
        """Takes a user in, where it was left if it was begun."""
        fit = begun or Fit(
            user,
            self._start.clone(),
            torch.zeros_like(self._start),
            torch.zeros_like(self._start),
            self._start.clone(),
        )
        fit.train, fit.held_out = split(examples, self._plan, user)
        self.active.append(fit)

    def step(self) -> list[Fit]:
        """One step for every user; those who are done leave and are returned.

        A look at the held-out examples comes before the first step, then every so many, and after
        the last.
        """
        plan = self._plan
        due = [fit for fit in self.active if fit.step % plan.every == 0 or fit.step == plan.steps]
        if due:
            self._look(due)
        done = [fit for fit in self.active if self._done(fit)]
        self.active = [fit for fit in self.active if not self._done(fit)]
        if self.active:
            self._learn(self.active)
        return done

    def _done(self, fit: Fit) -> bool:
        return fit.worse >= self._plan.patience or fit.step >= self._plan.steps

    def _learn(self, fits: Sequence[Fit]) -> None:
        plan = self._plan
        chosen = [_drawn(fit, plan) for fit in fits]
        rows = torch.stack([fit.row for fit in fits]).to(self._device).requires_grad_()
        owners = [index for index, examples in enumerate(chosen) for _ in examples]
        losses = self._losses(rows, owners, [e for examples in chosen for e in examples])
        share = torch.tensor([1 / len(chosen[owner]) for owner in owners], device=self._device)
        (gradient,) = torch.autograd.grad((losses * share).sum(), rows)
        for fit, slope in zip(fits, gradient.cpu(), strict=True):
            _adam(fit, slope, plan.rate)

    @torch.no_grad()
    def _look(self, fits: Sequence[Fit]) -> None:
        rows = torch.stack([fit.row for fit in fits]).to(self._device)
        owners = [index for index, fit in enumerate(fits) for _ in fit.held_out]
        examples = [example for fit in fits for example in fit.held_out]
        size = max(1, self._plan.users * self._plan.batch)
        losses = torch.cat(
            [
                self._losses(rows, owners[at : at + size], examples[at : at + size])
                for at in range(0, len(owners), size)
            ]
        ).cpu()
        for index, fit in enumerate(fits):
            own = [float(losses[at]) for at, owner in enumerate(owners) if owner == index]
            _judge(fit, sum(own) / len(own))

    def _losses(self, rows: Tensor, owners: Sequence[int], examples: Sequence[Example]) -> Tensor:
        """Mean negative log-likelihood of each example's answer, (n,)."""
        index = torch.tensor(owners, device=self._device)
        self._surface.live(rows.to(self._dtype)[index])
        nll, _, answers = answer_nll(self._model, examples, self._pad)
        return nll.sum(1) / answers.sum(1).to(nll.device)


def _initial(layout: Layout) -> Tensor:
    if not isinstance(layout, VeraLayout):
        return torch.zeros(sum(layout.vectors))
    parts = []
    for module in layout.modules:
        parts += [torch.full((layout.rank,), D_INITIAL), torch.zeros(module.outputs)]
    return torch.cat(parts)


def _drawn(fit: Fit, plan: Plan) -> list[Example]:
    """The examples of a user's next step: every one once, in an order of its own, then anew."""
    count = len(fit.train)
    size = min(plan.batch, count)
    per_epoch = -(-count // size)
    epoch, at = divmod(fit.step, per_epoch)
    order = list(range(count))
    random.Random(f"{plan.seed}/{fit.user}/{epoch}").shuffle(order)  # noqa: S311 no secret
    return [fit.train[index] for index in order[at * size : (at + 1) * size]]


def _adam(fit: Fit, slope: Tensor, rate: float) -> None:
    """One step of Adam (arXiv 1412.6980 algorithm 1) on one user's row."""
    fit.step += 1
    fit.first.lerp_(slope, 1 - _BETAS[0])
    fit.second.lerp_(slope * slope, 1 - _BETAS[1])
    first = fit.first / (1 - _BETAS[0] ** fit.step)
    second = fit.second / (1 - _BETAS[1] ** fit.step)
    fit.row = fit.row - rate * first / (second.sqrt() + _EPSILON)


def _judge(fit: Fit, loss: float) -> None:
    if fit.step == 0:
        fit.base_loss = loss
    if loss < fit.best_loss:
        fit.best_loss, fit.best, fit.best_step, fit.worse = loss, fit.row.clone(), fit.step, 0
    else:
        fit.worse += 1


# ---------------------------------------------------------------- a run that was stopped


def save_state(file: Path, key: str, fits: Sequence[Fit]) -> None:
    """Keeps users who are under way, in one file that is whole or absent.

    Args:
        file: where to.
        key: of the plan and the data; another one's state is not gone on with.
        fits: the users.
    """
    if not fits:
        file.unlink(missing_ok=True)
        return
    tensors = {name: torch.stack([getattr(fit, name) for fit in fits]) for name in _TENSORS}
    plain = [f.name for f in fields(Fit) if f.name not in (*_TENSORS, "train", "held_out")]
    noted = [{name: getattr(fit, name) for name in plain} for fit in fits]
    atomic.write_bytes(file, save(tensors, metadata={"key": key, "fits": json.dumps(noted)}))


def load_state(file: Path, key: str) -> dict[str, Fit]:
    """Users who were under way when a run with this key was stopped.

    Raises:
        InputError: what it kept is damaged.
    """
    if not there.is_file(file):
        return {}
    try:
        with safe_open(file, framework="pt", device="cpu") as stream:
            metadata = stream.metadata() or {}
            if metadata.get("key") != key:
                return {}
            tensors = {name: stream.get_tensor(name) for name in _TENSORS}
        return {
            noted["user"]: Fit(**{name: tensors[name][at] for name in _TENSORS}, **noted)
            for at, noted in enumerate(json.loads(metadata["fits"]))
        }
    except (OSError, SafetensorError, LookupError, ValueError, TypeError) as error:
        raise InputError(
            f"cannot be read: {error}",
            file=str(file),
            fix="remove it; users that were being fitted start over",
        ) from error


def run(
    fitter: Fitter,
    data: Mapping[str, Sequence[Example]],
    plan: Plan,
    state: Path,
    key: str,
) -> Iterator[list[Fit]]:
    """Fits all users; yields those who are done, often none, after every step.

    A user who was yielded is the caller's to keep: the state that is saved holds only the others.
    """
    begun = load_state(state, key)
    waiting = [*(user for user in begun if user in data), *(u for u in data if u not in begun)]
    steps = 0
    while waiting or fitter.active:
        while waiting and len(fitter.active) < plan.users:
            user = waiting.pop(0)
            fitter.join(user, data[user], begun.get(user))
        yield fitter.step()
        steps += 1
        if steps % plan.every == 0:
            save_state(state, key, fitter.active)
    save_state(state, key, [])
