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

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all other rows; a row that is named twice is there twice."""
        index = torch.tensor(rows, device=self._mask.device, dtype=torch.long)
        self._mask = self._mask[index]
        self.cache.batch_select_indices(index)


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
        self._length = stop
        self.keys, self.values = self._keys[:, :, :stop], self._values[:, :, :stop]
        return self.keys, self.values

    def spread(self, rows: Tensor, room: int) -> _RoomyLayer:
        """A layer of its own with more room, and in it these rows of this one."""
        other = _RoomyLayer(room)
        rows = rows.to(self.keys.device)
        other.update(self.keys[rows], self.values[rows])
        return other

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps only these rows."""
        indices = indices.to(self._keys.device)
        self._keys, self._values = self._keys[indices], self._values[indices]
        self.keys = self._keys[:, :, : self._length]
        self.values = self._values[:, :, : self._length]

    def _empty(self, like: Tensor) -> Tensor:
        rows, heads, _, width = like.shape
        return like.new_empty(rows, heads, self._room, width)
