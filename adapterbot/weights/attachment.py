"""Adapters under one loaded base model, chosen by gains and exchanged in milliseconds. (torch)

Every adapter sits in a named slot. Selecting one makes only its ranks live; a batch may mix slots
row by row; a blend makes all ranks live, each with its weight: Σ wᵢ sᵢ Bᵢ Aᵢ, exactly. With none
selected the base answers, bit for bit as if nothing were attached.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from adapterbot.errors import InputError
from adapterbot.weights.adapter import Adapter, LowRank
from adapterbot.weights.compatibility import check_fit
from adapterbot.weights.families import as_named
from adapterbot.weights.site import Live, Site
from adapterbot.weights.whole import WholeParameters

# The attribute of a model that says which of its attachments has something live.
_LIVE = "_live_attachment"


@dataclass
class _Slot:
    """One adapter, its factors on the model's device and in its dtype, by module."""

    adapter: Adapter
    factors: dict[str, LowRank]
    whole: WholeParameters


@dataclass(frozen=True)
class _Stack:
    """All slots' factors of one module side by side.

    Shapes: `a` (R, in), `b` (out, R) with R = Σ rᵢ; `slot` (R,) the slot each rank belongs to;
    `scale` (R,) its s.
    """

    a: Tensor
    b: Tensor
    slot: Tensor
    scale: Tensor


@dataclass
class _Pile:
    """The stacks of every module, their ranks numbered through.

    `slot` and `scale` (Σ R,) are those of all stacks one behind the other; `bounds` says which part
    is a module's. So a blend is one multiplication, and each site holds a view of its part.
    """

    stacks: dict[str, _Stack]
    slot: Tensor
    scale: Tensor
    bounds: dict[str, tuple[int, int]]


class Attachment:
    """Adapters attached to a model. Made by `attach`; a context manager that detaches.

    A model may carry several, of which one at a time has something live: what is selected last. The
    model's modules carry the hooks, so it is as little safe for concurrent use as the model itself.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._slots: dict[str, _Slot] = {}
        self._sites: dict[str, Site] = {}
        self._pile: _Pile | None = None
        self._gains: Tensor | None = None
        self._put: WholeParameters | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    @property
    def names(self) -> tuple[str, ...]:
        """The slots, in the order in which they were first filled."""
        return tuple(self._slots)

    def swap(self, name: str, adapter: Adapter) -> None:
        """Fills slot `name` with `adapter`, whatever it held before; nothing is selected after.

        Raises:
            InputError: the adapter does not fit the model; the slot is then as it was.
        """
        model = as_named(self._model, (*adapter.updates, *adapter.replaced))
        check_fit(model, adapter)
        self.select(None)
        factors = {}
        for module, update in adapter.updates.items():
            site = self._sites.get(module) or Site(module, model.get_submodule(module))
            if model is not self._model and site.device.type == "meta":
                site.close()
                continue
            self._sites[module] = site
            factors[module] = self._placed(update, site)
        self._slots[name] = _Slot(adapter, factors, WholeParameters(model, adapter))
        self._close_unused()

    def drop(self, name: str) -> None:
        """Empties slot `name`; nothing is selected after.

        Raises:
            KeyError: there is no such slot.
        """
        self._slot(name)
        self.select(None)
        del self._slots[name]
        self._close_unused()

    def _close_unused(self) -> None:
        """Takes the hooks off modules that no slot touches any more."""
        self._pile = None
        for module in [
            m for m in self._sites if not any(m in s.factors for s in self._slots.values())
        ]:
            self._sites.pop(module).close()

    def select(self, name: str | None) -> None:
        """Makes one slot live for every row; None for the bare base.

        Raises:
            KeyError: there is no such slot.
        """
        slot = self._slot(name) if name is not None else None
        if slot:
            self._take_over()
        elif vars(self._model).get(_LIVE) is self:
            del vars(self._model)[_LIVE]
        self._restore()
        self._gains = None
        for module, site in self._sites.items():
            factor = slot.factors.get(module) if slot else None
            site.live = Live(factor.a, factor.b, factor.scale) if factor else None
        if slot and slot.whole:
            self._put = slot.whole
            self._put.put()

    @contextmanager
    def selected(self, name: str | None) -> Iterator[None]:
        """`select(name)` inside, the bare base after."""
        self.select(name)
        try:
            yield
        finally:
            self.select(None)

    def select_rows(self, names: Sequence[str | None]) -> None:
        """Makes slot `names[i]` live for batch row i; None for the bare base.

        Raises:
            InputError: an adapter replaces whole parameters, which rows cannot differ in.
            KeyError: there is no such slot.
        """
        self.blend([{} if name is None else {name: 1.0} for name in names])

    def blend(self, weights: Mapping[str, float] | Sequence[Mapping[str, float]]) -> None:
        """Makes Σ wᵢ·ΔWᵢ live: one blend for every row, or one for each row of the batch.

        Args:
            weights: slot → w; a slot that is not named weighs nothing.

        Raises:
            InputError: an adapter with a weight replaces whole parameters.
            KeyError: there is no such slot.
        """
        rows = [weights] if isinstance(weights, Mapping) else list(weights)
        for name in set().union(*rows):
            self._slot(name)
        # One tensor made of numbers: to write them into one, one by one, took most of the time.
        table = torch.tensor(
            [[blend.get(name, 0.0) for name in self._slots] for blend in rows],
            dtype=torch.float32,
        ).reshape(len(rows), len(self._slots))
        used = {name for blend in rows for name, weight in blend.items() if weight}
        self._weigh(table[0] if isinstance(weights, Mapping) else table, used)

    def detach(self) -> None:
        """Leaves the model as it was found, the very same objects. Twice is once."""
        self.select(None)
        for site in self._sites.values():
            site.close()
        self._sites.clear()
        self._slots.clear()
        self._pile = None

    def _slot(self, name: str) -> _Slot:
        if name not in self._slots:
            raise KeyError(f"no slot {name!r} among {list(self._slots)}")
        return self._slots[name]

    def _take_over(self) -> None:
        """Leaves nothing live in the model's other attachments: the updates would add up, as where
        a cell of a notebook is run twice."""
        held = vars(self._model)
        if (other := held.get(_LIVE)) is not None and other is not self:
            other.select(None)
        held[_LIVE] = self

    def _restore(self) -> None:
        if self._put:
            self._put.restore()
            self._put = None

    def _placed(self, update: LowRank, site: Site) -> LowRank:
        dtype = compute_dtype(self._model)
        return LowRank(
            update.a.to(site.device, dtype),
            update.b.to(site.device, dtype),
            update.scale,
            update.embedding,
        )

    def _weigh(self, weights: Tensor, used: set[str]) -> None:
        """Sets every rank's gain to w·s. `weights` is (slots,) or (rows, slots)."""
        for name in used:
            if self._slots[name].whole:
                raise InputError(
                    "replaces whole parameters, which cannot be blended or differ by row",
                    file=self._slots[name].adapter.files.weights_shown,
                    field=next(iter(self._slots[name].adapter.replaced)),
                    fix="evaluate this adapter on its own",
                )
        self._take_over()
        self._restore()
        if not self._sites:
            return
        pile = self._pile = self._pile or self._stack()
        gains = weights.index_select(-1, pile.slot).mul_(pile.scale)
        if self._gains is not None and self._gains.shape == gains.shape:
            # The sites hold views of it: this is all that a new blend costs.
            self._gains.copy_(gains)
            return
        first = next(iter(pile.stacks.values())).a
        self._gains = gains = gains.to(first)
        for module, site in self._sites.items():
            stack = pile.stacks[module]
            start, stop = pile.bounds[module]
            g = gains[..., start:stop].to(stack.a)
            site.live = Live(stack.a, stack.b, g)
            if stack.a.device != first.device:
                self._gains = None

    def _stack(self) -> _Pile:
        stacks: dict[str, _Stack] = {}
        bounds: dict[str, tuple[int, int]] = {}
        end = 0
        for module in self._sites:
            stacks[module] = self._stacked(module)
            bounds[module] = (end, end + len(stacks[module].slot))
            end = bounds[module][1]
        return _Pile(
            stacks,
            torch.cat([stack.slot for stack in stacks.values()]),
            torch.cat([stack.scale for stack in stacks.values()]),
            bounds,
        )

    def _stacked(self, module: str) -> _Stack:
        held = [
            (index, slot.factors[module])
            for index, slot in enumerate(self._slots.values())
            if module in slot.factors
        ]
        a = torch.cat([factor.a for _, factor in held])
        b = torch.cat([factor.b for _, factor in held], dim=1)
        ranks = [factor.rank for _, factor in held]
        slots = list(self._slots.values())
        for (index, factor), part, columns in zip(
            held, a.split(ranks), b.split(ranks, dim=1), strict=True
        ):
            # The slot goes on with a view, so that nothing is held twice.
            slots[index].factors[module] = replace(factor, a=part, b=columns)
        return _Stack(
            a,
            b,
            torch.cat([torch.full((factor.rank,), index) for index, factor in held]),
            torch.cat([torch.full((factor.rank,), factor.scale) for _, factor in held]),
        )


def attach(model: nn.Module, adapters: Mapping[str, Adapter]) -> Attachment:
    """Attaches LoRA adapters to `model`, each in its own slot; none is selected yet.

    Args:
        model: a transformers model; its modules, names and parameters stay the same objects.
        adapters: slot name → adapter.

    Raises:
        InputError: an adapter does not fit the model, or PEFT wraps it; nothing is then attached.
    """
    if hasattr(model, "get_base_model"):
        raise InputError(
            "is wrapped by PEFT, which has adapters of its own in it",
            field="model",
            fix="attach to what it wraps: model.unload()",
        )
    attachment = Attachment(model)
    try:
        for name, adapter in adapters.items():
            attachment.swap(name, adapter)
    except BaseException:  # also Ctrl-C, and a device whose memory is full
        attachment.detach()
        raise
    return attachment


def compute_dtype(model: nn.Module) -> torch.dtype:
    """The dtype in which the model computes: that of its floating-point parameters."""
    return next(p.dtype for p in model.parameters() if p.is_floating_point())
