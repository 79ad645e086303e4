"""A bank under a transformers model: every row of a batch with its own user, or none. (torch)

    y = W x + Λ_b[u] ⊙ ( B ( Λ_d[u] ⊙ ( A x ) ) )                 (VeRA, arXiv 2310.11454 eq. 2)

is the house's one equation with g = Λ_d and b = Λ_b of the row's user, so the sites are those of
`weights.site`. VB-LoRA's users have factors of their own, A_u and B_u: those of the users of a
batch are stacked, and g selects each row's. Soup's bank is h ← h + v ⊙ (P h) behind one layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapterbot.bank.codec import Rows
from adapterbot.bank.manifest import Layout, SoupLayout, VbLoraLayout, VeraLayout
from adapterbot.bank.portable import Portable
from adapterbot.bank.slab import Slab
from adapterbot.bank.soup import VectorBank
from adapterbot.bank.source import Source, source_of
from adapterbot.bank.store import BankStore
from adapterbot.bank.vblora import expand, expanded_width
from adapterbot.errors import InputError
from adapterbot.weights.attachment import compute_dtype
from adapterbot.weights.site import Live, Site, features

DEFAULT_SLOTS = 1024


class _Surface(Protocol):
    """The part of the model that a layout adds to."""

    def select(self, table: Tensor, slots: Tensor) -> None:
        """Makes the users in these slots of the slab live, one a row."""

    def clear(self) -> None:
        """Makes nobody live."""

    def close(self) -> None:
        """Takes the hooks off."""


class AttachedBank:
    """A bank under a model. Made by `attach_bank`; a context manager that detaches.

    As little safe for concurrent use as the model itself; only `prefetch` may come from elsewhere.
    """

    def __init__(self, model: Any, source: Source, slots: int) -> None:
        layout = source.manifest.layout
        dtype, device = compute_dtype(model), next(model.parameters()).device
        shared = {n: tensor.to(device, dtype) for n, tensor in source.shared().items()}
        expander = _plain
        width = source.manifest.floats
        if isinstance(layout, VbLoraLayout):
            vectors = shared["vectors"].cpu().float()
            width = expanded_width(layout)

            def expander(rows: Rows) -> Tensor:
                return expand(layout, rows, vectors)

        self._surface = _surface(model, layout, shared)
        self._slab = Slab(source, expander, width, slots, device, dtype)
        self._model = model
        self._selected: tuple[str | None, ...] | None = None
        self._version = source.version
        self._source = source
        self._generate = model.generate if hasattr(model, "generate") else None
        if self._generate is not None:
            model.generate = self._generate_for

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.detach()

    def select(self, users: Sequence[str | None] | None) -> None:
        """Makes `users[i]` live for batch row i; None for the bare base. None for all: no bank.

        Raises:
            InputError: there is no such user; nobody is live then.
        """
        wanted = None if users is None else tuple(users)
        # What is live must be of now, so rows are looked up anew whenever the bank was written to.
        version = self._source.version
        if wanted == self._selected and version == self._version:
            return
        self._selected = None
        self._surface.clear()
        if wanted is not None and any(user is not None for user in wanted):
            table = self._slab.table
            slots = torch.tensor(self._slab.slots(wanted), device=table.device)
            self._surface.select(table, slots)
        self._selected, self._version = wanted, version

    @contextmanager
    def tenants(self, users: Sequence[str | None]) -> Iterator[None]:
        """`select(users)` inside; what was selected before, after."""
        before = self._selected
        self.select(users)
        try:
            yield
        finally:
            self.select(before)

    def prefetch(self, users: Sequence[str]) -> None:
        """Has the rows of users who will be asked for soon read beside what is going on."""
        self._slab.prefetch(users)

    def detach(self) -> None:
        """Leaves the model as it was found. Twice is once."""
        self._surface.clear()
        self._surface.close()
        self._slab.close()
        if self._generate is not None:
            del self._model.generate
            self._generate = None

    def _generate_for(
        self, *arguments: Any, tenants: Sequence[str | None] | None = None, **options: Any
    ) -> Any:
        """The model's `generate`, with `tenants`: one user, or None, for each row."""
        assert self._generate is not None  # noqa: S101 it is only installed where there is one
        if tenants is None:
            return self._generate(*arguments, **options)
        # Beams and several answers are rows of their own, beside those that they come from.
        config = options.get("generation_config") or self._model.generation_config
        copies = max(
            options.get(name) or getattr(config, name, None) or 1
            for name in ("num_beams", "num_return_sequences")
        )
        with self.tenants([user for user in tenants for _ in range(copies)]):
            return self._generate(*arguments, **options)


def attach_bank(
    model: Any,
    bank: BankStore | Portable | VectorBank | Path | str,
    *,
    slots: int = DEFAULT_SLOTS,
) -> AttachedBank:
    """Puts a bank under a model; nobody is live yet.

    Then `model.generate(…, tenants=["ann", None])`, or `with attached.tenants(["ann", None]):`
    around any forward pass of two rows.

    Args:
        model: a transformers model; its modules and parameters stay the same objects.
        bank: a store, or its directory; an exported file; or Soup's bank.
        slots: how many users' rows the device holds; one row is `manifest.floats` numbers.

    Raises:
        InputError: the bank was not made for this model, or its shared tensors are not there.
    """
    return AttachedBank(model, source_of(bank), slots)


def _plain(rows: Rows) -> Tensor:
    return torch.from_numpy(rows.values)


def _surface(model: Any, layout: Layout, shared: dict[str, Tensor]) -> _Surface:
    if isinstance(layout, SoupLayout):
        return _Residual(_layer(model, layout), shared["P"])
    sites = _sites(model, layout)
    if isinstance(layout, VeraLayout):
        return _Vera(sites, layout, shared["A"], shared["B"])
    return _VbLora(sites, layout)


def _sites(model: Any, layout: VeraLayout | VbLoraLayout) -> list[Site]:
    modules = dict(model.named_modules())
    for wanted in layout.modules:
        module = modules.get(wanted.name)
        found = None if module is None or isinstance(module, nn.Embedding) else features(module)
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


class _Vera:
    """Shared A and B; the users' Λ_d and Λ_b, gathered once for all modules, are the gains."""

    def __init__(self, sites: list[Site], layout: VeraLayout, a: Tensor, b: Tensor) -> None:
        self._sites = sites
        self._factors = [(a[:, : m.inputs], b[: m.outputs]) for m in layout.modules]
        self._sizes = layout.vectors
        self._gains: Tensor | None = None

    def select(self, table: Tensor, slots: Tensor) -> None:
        if self._gains is None or len(self._gains) != len(slots):
            self._gains = table.new_empty(len(slots), table.shape[1])
        # The sites hold views of one buffer: exchanging users is this one gather, and a compiled
        # or captured model sees the same addresses.
        torch.index_select(table, 0, slots, out=self._gains)
        parts = self._gains.split(self._sizes, dim=1)
        gains = zip(parts[::2], parts[1::2], strict=True)
        for site, (a, b), (inner, outer) in zip(self._sites, self._factors, gains, strict=True):
            site.live = Live(a, b, inner, outer)

    def clear(self) -> None:
        for site in self._sites:
            site.live = None

    def close(self) -> None:
        for site in self._sites:
            site.close()


class _VbLora:
    """The factors of the users of a batch side by side; g is one where a rank is the row's own."""

    def __init__(self, sites: list[Site], layout: VbLoraLayout) -> None:
        self._sites = sites
        self._rank = layout.rank
        self._sizes = [layout.rank * size for m in layout.modules for size in (m.inputs, m.outputs)]

    def select(self, table: Tensor, slots: Tensor) -> None:
        present, own = slots.unique(return_inverse=True)
        users = torch.arange(len(present), device=table.device)
        g = (own[:, None] == users.repeat_interleave(self._rank)).to(table.dtype)
        parts = table[present].split(self._sizes, dim=1)
        for site, a, b in zip(self._sites, parts[::2], parts[1::2], strict=True):
            stacked = b.reshape(len(present), -1, self._rank).transpose(0, 1)
            site.live = Live(
                a.reshape(len(present) * self._rank, -1),
                stacked.reshape(-1, len(present) * self._rank),
                g,
            )

    def clear(self) -> None:
        for site in self._sites:
            site.live = None

    def close(self) -> None:
        for site in self._sites:
            site.close()


class _Residual:
    """h ← h + v ⊙ (P h) on the output of one decoder layer."""

    def __init__(self, layer: nn.Module, projection: Tensor) -> None:
        self._projection = projection
        self._gain: Tensor | None = None
        self._handle = layer.register_forward_hook(self._add)

    def select(self, table: Tensor, slots: Tensor) -> None:
        self._gain = table[slots]

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
