"""What a bank adds to a model, by layout, each with the rows of a batch told apart. (torch)

    y = W x + Λ_b[u] ⊙ ( B ( Λ_d[u] ⊙ ( A x ) ) )                 (VeRA, arXiv 2310.11454 eq. 2)

is the house's one equation with g = Λ_d and b = Λ_b of the row's user, so the sites are those of
`weights.site`. VB-LoRA's users have factors of their own, A_u and B_u: those of the users of a
batch are stacked, and g selects each row's. Soup's bank is h ← h + v ⊙ (P h) behind one layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapterbot.bank.manifest import Layout, SoupLayout, VbLoraLayout, VeraLayout
from adapterbot.errors import InputError
from adapterbot.weights.families import as_named
from adapterbot.weights.site import Live, Site, features, is_linear


class Surface(Protocol):
    """The part of the model that a layout adds to."""

    def select(self, table: Tensor, slots: Tensor) -> None:
        """Makes the users in these slots of the slab live, one a row."""

    def clear(self) -> None:
        """Makes nobody live."""

    def close(self) -> None:
        """Takes the hooks off."""


def surface_of(model: Any, layout: Layout, shared: Mapping[str, Tensor]) -> Surface:
    """Hooks a layout to a model; nobody is live yet.

    Raises:
        InputError: the model has other modules or widths than the bank.
    """
    if isinstance(layout, SoupLayout):
        return _Residual(_layer(model, layout), shared["P"])
    sites = _sites(model, layout)
    try:
        if isinstance(layout, VeraLayout):
            return _Vera(sites, layout, shared["A"], shared["B"])
        return _VbLora(sites, layout)
    except BaseException:  # a device whose memory is full
        for site in sites:
            site.close()
        raise


def _sites(model: Any, layout: VeraLayout | VbLoraLayout) -> list[Site]:
    named = as_named(model, [module.name for module in layout.modules])
    modules = dict(named.named_modules())
    for wanted in layout.modules:
        module = modules.get(wanted.name)
        found = features(module) if module is not None and is_linear(module) else None
        if found != (wanted.inputs, wanted.outputs):
            what = (
                "no such linear module" if found is None else f"{found[0]} to {found[1]} features"
            )
            raise InputError(
                f"maps {wanted.inputs} to {wanted.outputs} features in the bank; the model has"
                f" {what}",
                field=wanted.name,
                fix="use the base model that the bank was made for",
            )
    return [Site(m.name, modules[m.name]) for m in layout.modules]


class _OnSites:
    """What adds low-rank factors to modules, whatever the factors are made of. Where a base is
    spread over several devices, each module's factors and gains lie with it."""

    def __init__(self, sites: list[Site]) -> None:
        self._sites = sites
        self._places = [site.device for site in sites]

    def clear(self) -> None:
        for site in self._sites:
            site.live = None

    def close(self) -> None:
        for site in self._sites:
            site.close()


class _Vera(_OnSites):
    """Shared A and B; the users' Λ_d and Λ_b, gathered once for all modules, are the gains."""

    def __init__(self, sites: list[Site], layout: VeraLayout, a: Tensor, b: Tensor) -> None:
        super().__init__(sites)
        placed = {place: (a.to(place), b.to(place)) for place in set(self._places)}
        self._factors = [
            (placed[place][0][:, : m.inputs], placed[place][1][: m.outputs])
            for place, m in zip(self._places, layout.modules, strict=True)
        ]
        self._sizes = layout.vectors
        self._gains: Tensor | None = None

    def select(self, table: Tensor, slots: Tensor) -> None:
        if self._gains is None or len(self._gains) != len(slots):
            with torch.inference_mode(mode=False):  # it may be written to outside of it later
                self._gains = table.new_empty(len(slots), table.shape[1])
        # The sites hold views of one buffer: exchanging users is this one gather, and a compiled
        # or captured model sees the same addresses.
        torch.index_select(table, 0, slots, out=self._gains)
        self.live(self._gains)

    def live(self, rows: Tensor) -> None:
        """Makes these rows live, one a batch row; gradients flow into them."""
        parts = {place: rows.to(place).split(self._sizes, dim=1) for place in set(self._places)}
        for index, (site, (a, b)) in enumerate(zip(self._sites, self._factors, strict=True)):
            own = parts[self._places[index]]
            site.live = Live(a, b, own[2 * index], own[2 * index + 1])


class _VbLora(_OnSites):
    """The factors of the users of a batch side by side; g is one where a rank is the row's own."""

    def __init__(self, sites: list[Site], layout: VbLoraLayout) -> None:
        super().__init__(sites)
        self._rank = layout.rank
        self._sizes = [layout.rank * size for m in layout.modules for size in (m.inputs, m.outputs)]

    def select(self, table: Tensor, slots: Tensor) -> None:
        present, own = slots.unique(return_inverse=True)
        users = torch.arange(len(present), device=table.device)
        g = (own[:, None] == users.repeat_interleave(self._rank)).to(table.dtype)
        gains = {place: g.to(place) for place in set(self._places)}
        parts = table[present].split(self._sizes, dim=1)
        for site, place, a, b in zip(
            self._sites, self._places, parts[::2], parts[1::2], strict=True
        ):
            stacked = b.to(place).reshape(len(present), -1, self._rank).transpose(0, 1)
            site.live = Live(
                a.to(place).reshape(len(present) * self._rank, -1),
                stacked.reshape(-1, len(present) * self._rank),
                gains[place],
            )


class _Residual:
    """h ← h + v ⊙ (P h) on the output of one decoder layer."""

    def __init__(self, layer: nn.Module, projection: Tensor) -> None:
        self._place = next(layer.parameters()).device
        self._projection = projection.to(self._place)
        self._gain: Tensor | None = None
        self._handle = layer.register_forward_hook(self._add)

    def select(self, table: Tensor, slots: Tensor) -> None:
        self.live(table[slots])

    def live(self, rows: Tensor) -> None:
        """As `_Vera.live`."""
        self._gain = rows.to(self._place)

    def clear(self) -> None:
        self._gain = None

    def close(self) -> None:
        self._handle.remove()

    def _add(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        if self._gain is None:
            return None
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.dim() != 3 or len(hidden) != len(self._gain):
            raise InputError(
                f"has {len(hidden)} rows, but users were named for {len(self._gain)}",
                field="tenants",
                fix="name one user, or None, for each row",
            )
        moved = torch.addcmul(hidden, F.linear(hidden, self._projection), self._gain[:, None])
        return (moved, *output[1:]) if isinstance(output, tuple) else moved


def _layer(model: Any, layout: SoupLayout) -> nn.Module:
    decoder = model.get_decoder()
    layers = getattr(decoder, "layers", None) or getattr(decoder, "h", None)
    width = model.config.get_text_config().hidden_size
    if layers is None or not -len(layers) <= layout.layer < len(layers):
        raise InputError(
            "is not a layer of this model", field=f"layer {layout.layer}", fix="correct it"
        )
    if width != layout.size:
        raise InputError(
            f"is {layout.size}, but this model's hidden states are {width} wide",
            field="vector_dim",
            fix="use the base model that the bank was made for",
        )
    found: nn.Module = layers[layout.layer]
    return found
