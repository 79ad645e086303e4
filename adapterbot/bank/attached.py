"""A bank under a transformers model: every row of a batch with its own user, or none. (torch)

Who is live, and from where their rows come; what is added to the model is `surfaces`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from adapterbot.bank.codec import Rows
from adapterbot.bank.manifest import Manifest, VbLoraLayout
from adapterbot.bank.portable import Portable
from adapterbot.bank.slab import Slab
from adapterbot.bank.soup import VectorBank
from adapterbot.bank.source import Source, source_of
from adapterbot.bank.store import BankStore
from adapterbot.bank.surfaces import surface_of
from adapterbot.bank.vblora import expand, expanded_width
from adapterbot.errors import InputError
from adapterbot.weights.attachment import compute_dtype
from adapterbot.weights.memory import fitting
from adapterbot.weights.trained_on import names_another

DEFAULT_SLOTS = 1024


class AttachedBank:
    """A bank under a model. Made by `attach_bank`; a context manager that detaches.

    As little safe for concurrent use as the model itself; only `prefetch` may come from elsewhere.
    """

    def __init__(
        self, model: Any, source: Source, slots: int, opened: BankStore | None = None
    ) -> None:
        """As `attach_bank`; a store that was opened for this is closed with it."""
        if slots < 1:
            raise InputError(f"is {slots}", field="slots", fix="write 1 or more")
        _refuse_a_second(model)
        _refuse_another(model, source.manifest)
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

        # First what may not fit the device: nothing has touched the model yet.
        with fitting(
            f"{slots} users' rows of {width:,} numbers do not fit into the device's memory",
            field=f"bank {source.manifest.name}",
            fix="attach it with fewer slots",
        ):
            self._slab = Slab(source, expander, width, slots, device, dtype)
        self._surface = surface_of(model, layout, shared)
        self._model = model
        self._selected: tuple[str | None, ...] | None = None
        self._version = source.version
        self._source = source
        self._opened = opened
        self._generate = model.generate if hasattr(model, "generate") else None
        if self._generate is not None:
            model.generate = self._generate_for

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def select(self, users: Sequence[str | None] | None) -> None:
        """Makes `users[i]` live for batch row i; None for the bare base. None for all: no bank.

        Raises:
            InputError: there is no such user; nobody is live then.
            TypeError: it is one name.
        """
        if isinstance(users, str):
            raise TypeError(f"users are a list, one for each row: [{users!r}]")
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

    def digest(self, user: str) -> bytes | None:
        """What tells the row that is live for a user, who was selected, from any other."""
        return self._slab.digest(user)

    def prefetch(self, users: Sequence[str]) -> None:
        """Has the rows of users who will be asked for soon read beside what is going on."""
        self._slab.prefetch(users)

    def detach(self) -> None:
        """Leaves the model as it was found. Twice is once."""
        self._surface.clear()
        self._surface.close()
        self._slab.close()
        if self._opened is not None:
            self._opened.close()
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
        rows = tenants if copies == 1 else [user for user in tenants for _ in range(copies)]
        with self.tenants(rows):
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
        bank: a store, which stays its owner's to close, or its directory; an exported file; or
            Soup's bank.
        slots: how many users' rows the device holds; one row is `manifest.floats` numbers.

    Raises:
        InputError: the bank was not made for this model, or says that it is of another one of the
            Hub; or its shared tensors are not there; or the model has a bank attached already.
        OurFailure: so many slots do not fit into the device's memory.
    """
    if not isinstance(bank, str | Path):
        return AttachedBank(model, source_of(bank), slots)
    store = BankStore(bank)
    try:
        return AttachedBank(model, source_of(store), slots, store)
    except BaseException:
        store.close()
        raise


def _refuse_a_second(model: Any) -> None:
    """A model has one `generate`, whose tenants are those of one bank."""
    if isinstance(getattr(vars(model).get("generate"), "__self__", None), AttachedBank):
        raise InputError(
            "has a bank attached already",
            field="model",
            fix="detach that one first: model.generate.__self__.detach()",
        )


def _refuse_another(model: Any, manifest: Manifest) -> None:
    """By name: a sibling of the same shape takes the rows, and answers something else."""
    name = getattr(getattr(model, "config", None), "name_or_path", None)
    if not isinstance(name, str) or Path(name).is_dir():
        return
    if names_another(name, manifest.base_model):
        raise InputError(
            f"is of {manifest.base_model!r}, and the model is {name!r}",
            field=f"bank {manifest.name}",
            fix="attach it to its own base; if both are one model, export the bank and import it"
            f" with --base {name}",
        )


def _plain(rows: Rows) -> Tensor:
    return torch.from_numpy(rows.values)
