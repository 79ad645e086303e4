"""Blends of adapters under one base, a candidate a few microseconds. (torch)

Every adapter lies under the base with all its ranks, once for each group of layers; a candidate is
nothing but their gains g = repeat(wᵢ sᵢ, rᵢ) (design.md §5). So whoever searches for weights
rewrites no file and loads no tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

from adapterbot.eval.base_model import BaseModel
from adapterbot.eval.local import LocalModel
from adapterbot.eval.questions import Subject
from adapterbot.eval.settings import EngineSettings
from adapterbot.weights.adapter import Adapter, Lazily
from adapterbot.weights.attachment import Attachment, attach
from adapterbot.weights.layers import group_of
from adapterbot.weights.merging import merge_linear

_WHOLE = "merged"

GroupWeights = Sequence[Sequence[float]]


class BlendedModel(LocalModel):
    """A base model that answers under Σ wᵢ ΔWᵢ, with the weights that were set last.

    Evaluated with no adapter named, it answers under the blend and not as the bare base. It may
    answer under several at once, its variants: then the rows of one batch are under different ones.
    """

    def __init__(
        self,
        base: BaseModel,
        settings: EngineSettings,
        adapters: Sequence[Adapter],
        groups: Sequence[Sequence[int]],
    ) -> None:
        """Attaches the adapters.

        Args:
            adapters: in the order of their weights.
            groups: layer numbers that share their weights; one empty group for all of them.

        Raises:
            InputError: an adapter does not fit the base.
        """
        super().__init__(base, settings)
        self._adapters = adapters
        self._groups = groups
        self._weights: Sequence[GroupWeights] = ()
        # Whole parameters cannot be weighed by gains: such a candidate is put together in memory.
        self._whole = any(adapter.replaced for adapter in adapters)
        self._blends: Attachment = attach(
            base.model,
            {}
            if self._whole
            else {
                f"{index}/{group}": part
                for index, adapter in enumerate(adapters)
                for group, part in enumerate(_parts(adapter, groups))
            },
        )

    @cached_property
    def side_by_side(self) -> bool:
        """Whether the rows of a batch may be under different blends."""
        return all(map(self.rows_may_differ, self._adapters))

    def blend(self, *weights: GroupWeights) -> None:
        """Makes these the weights of what is answered next, one variant of the model each.

        Args:
            weights: a row for each group of layers. More than one only if `side_by_side`.
        """
        self._weights = weights

    @contextmanager
    def under(self, files: Subject | None, digest: str) -> Iterator[None]:
        """The blends under the base inside, the bare base after."""
        if files is not None:
            with super().under(files, digest):
                yield
            return
        if self._whole:
            merged = merge_linear(self._adapters, self._weigh, base=self.base.directory)
            self._blends.swap(_WHOLE, merged)
            self._blends.select(_WHOLE)
        elif len(self._weights) == 1:
            self._blends.blend(self._by_slot(self._weights[0]))
        else:
            self.passes.steer(self._put_by_row)
        try:
            yield
        finally:
            self.passes.steer(None)
            self._blends.select(None)

    def _put_by_row(self, variants: Sequence[int]) -> None:
        slots = {variant: self._by_slot(self._weights[variant]) for variant in set(variants)}
        self._blends.blend([slots[variant] for variant in variants])

    def _by_slot(self, weights: GroupWeights) -> dict[str, float]:
        held = set(self._blends.names)
        return {
            slot: weight
            for group, row in enumerate(weights)
            for index, weight in enumerate(row)
            if (slot := f"{index}/{group}") in held
        }

    def _weigh(self, name: str) -> Sequence[float]:
        return self._weights[0][group_of(name, self._groups)]

    def close(self) -> None:
        """Takes every adapter off the base."""
        self._blends.detach()
        super().close()


def _parts(adapter: Adapter, groups: Sequence[Sequence[int]]) -> list[Adapter]:
    """The adapter cut by groups of layers, each part announcing the modules that it has."""
    if len(groups) == 1:
        return [adapter]
    modules: list[list[str]] = [[] for _ in groups]
    for module in adapter.updates:
        modules[group_of(module, groups)].append(module)
    return [_only(adapter, part) for part in modules]


def _only(adapter: Adapter, modules: Sequence[str]) -> Adapter:
    config = adapter.config.model_copy(
        update={
            "target_modules": tuple(modules),
            "exclude_modules": None,
            "layers_to_transform": None,
        }
    )
    return Adapter(adapter.files, config, Lazily(modules, adapter.updates.__getitem__), {})
