"""Keys and values of a batch that shrinks, and the mask of which of them count. (torch)"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class KeyValues:
    """A KV cache with room for a known number of positions, from which rows can be dropped.

    Every layer keeps all positions; a sliding window is then applied by the model's mask.
    """

    def __init__(self, mask: Tensor, room: int, cache: Cache | None = None) -> None:
        """A cache that is empty, or holds what `cache` does.

        Args:
            mask: (rows, positions) of the first pass, or of those that `cache` holds; 1 where a
                token counts.
            room: how many positions a row may come to have, these included.
        """
        self.cache = cache or Cache(layer_class_to_replicate=partial(_RoomyLayer, room))
        self._mask = torch.ones(mask.shape[0], room, dtype=mask.dtype, device=mask.device)
        self._mask[:, : mask.shape[1]] = mask
        self._length = mask.shape[1]

    @classmethod
    def joined(cls, parts: Sequence[tuple[Sequence[int], KeyValues]], more: int) -> KeyValues:
        """Caches of different rows as one, filled on the left to the longest. Theirs end: a layer
        is let go of when it has been copied, so that no more than one is held twice.

        Args:
            parts: the places of a cache's rows in the whole, and the cache.
            more: for how many positions there shall be room behind.
        """
        count = sum(len(rows) for rows, _ in parts)
        length = max(keys.mask.shape[1] for _, keys in parts)
        mask = parts[0][1].mask.new_zeros(count, length)
        places = [torch.tensor(rows, device=mask.device, dtype=torch.long) for rows, _ in parts]
        for index, (_, keys) in zip(places, parts, strict=True):
            mask[index, length - keys.mask.shape[1] :] = keys.mask
        layers: list[_RoomyLayer] = []
        for _ in range(len(parts[0][1].cache.layers)):
            held = [keys.cache.layers.pop(0) for _, keys in parts]
            layers.append(held[0].blank(count, length, length + more))
            for index, layer in zip(places, held, strict=True):
                layers[-1].place(index, layer)
        return cls(mask, length + more, Cache(layers=layers))

    @property
    def mask(self) -> Tensor:
        """The mask for the pass that is next: (rows, positions so far and the new)."""
        return self._mask[:, : self._length]

    def advance(self, mask: Tensor | None = None) -> None:
        """More positions are going to be read: those of `mask` (rows, new), or one by every row."""
        new = 1 if mask is None else mask.shape[1]
        if mask is not None:
            self._mask[:, self._length : self._length + new] = mask
        self._length += new

    def spread(self, rows: Sequence[int], more: int) -> KeyValues:
        """A cache of its own for these rows, a row that is named twice being there twice, with
        room for `more` positions. This one stays as it is."""
        index = torch.tensor(rows, device=self._mask.device, dtype=torch.long)
        room = self._length + more
        layers = [layer.spread(index, room) for layer in self.cache.layers]
        return KeyValues(self.mask[index], room, Cache(layers=layers))

    def of(self, rows: Sequence[int]) -> KeyValues:
        """As `spread`, with the room that this one has."""
        index = torch.tensor(rows, device=self._mask.device, dtype=torch.long)
        layers = [layer.of(index) for layer in self.cache.layers]
        return KeyValues(self.mask[index], self._mask.shape[1], Cache(layers=layers))

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all other rows; a row that is named twice is there twice."""
        index = torch.tensor(rows, device=self._mask.device, dtype=torch.long)
        self._mask = self._mask[index]
        self.cache.reorder_cache(index)


class _RoomyLayer(DynamicLayer):
    """A layer that writes into room made once, where DynamicLayer copies itself at every token.

    Shapes: keys and values (rows, heads, positions, head width).
    """

    def __init__(self, room: int, **options: Any) -> None:
        super().__init__(**options)
        self._room = room
        self._length = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Appends, and returns all positions so far."""
        if not self._length:
            self.lazy_initialization(key_states, value_states)
            self._keys, self._values = self._empty(key_states), self._empty(value_states)
        start, stop = self._length, self._length + key_states.shape[-2]
        self._keys[:, :, start:stop] = key_states
        self._values[:, :, start:stop] = value_states
        self._show(stop)
        return self.keys, self.values

    def spread(self, rows: Tensor, room: int) -> _RoomyLayer:
        """A layer of its own with more room, and in it these rows of this one."""
        other = _RoomyLayer(room)
        rows = rows.to(self.keys.device)
        # index_select copies whole rows, where indexing gathers their numbers one by one.
        other.update(self.keys.index_select(0, rows), self.values.index_select(0, rows))
        return other

    def of(self, rows: Tensor) -> _RoomyLayer:
        """A layer of its own with these rows of this one, and its room: everything copied once."""
        other = _RoomyLayer(self._room)
        other.lazy_initialization(self.keys, self.values)
        rows = rows.to(self.keys.device)
        other._keys = self._keys.index_select(0, rows)
        other._values = self._values.index_select(0, rows)
        other._show(self._length)
        return other

    def blank(self, rows: int, length: int, room: int) -> _RoomyLayer:
        """A layer of zeros of this one's type and width, which a mask must hide."""
        other = _RoomyLayer(room)
        other.lazy_initialization(self.keys, self.values)
        heads, width = self.keys.shape[1], self.keys.shape[-1]
        other._keys = self.keys.new_zeros(rows, heads, room, width)
        other._values = self.values.new_zeros(rows, heads, room, self.values.shape[-1])
        other._show(length)
        return other

    def place(self, rows: Tensor, other: _RoomyLayer) -> None:
        """Writes another layer's rows into these rows of this one, ending where it ends."""
        rows = rows.to(self.keys.device)
        start = self._length - other.keys.shape[-2]
        self.keys[:, :, start:].index_copy_(0, rows, other.keys)
        self.values[:, :, start:].index_copy_(0, rows, other.values)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keeps only these rows."""
        rows = beam_idx.to(self._keys.device)
        self._keys = self._keys.index_select(0, rows)
        self._values = self._values.index_select(0, rows)
        self._show(self._length)

    def _show(self, length: int) -> None:
        """Shows the first `length` positions, those that are written."""
        self._length = length
        self.keys, self.values = self._keys[:, :, :length], self._values[:, :, :length]

    def _empty(self, like: Tensor) -> Tensor:
        rows, heads, _, width = like.shape
        return like.new_empty(rows, heads, self._room, width)
