"""The keys and values of a batch that shrinks, and the mask of which of them count. (torch)"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache


class KeyValues:
    """A KV cache whose rows can be dropped and whose rejected positions can be forgotten.

    Every layer keeps all positions (sliding-window models too: their window is then applied by the
    mask), so that positions can be taken back.
    """

    def __init__(self) -> None:
        self.cache = DynamicCache()
        self._mask = torch.empty(0)

    def mask_with_next(self) -> Tensor:
        """The mask for a pass that reads one more token: (rows, past + 1)."""
        return torch.nn.functional.pad(self._mask, (0, 1), value=1)

    def grown(self) -> None:
        """One more token has been read."""
        self._mask = self.mask_with_next()

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Drops all other rows."""
        index = torch.tensor(rows, device=self._mask.device, dtype=torch.long)
        self._mask = self._mask[index]
        self.cache.batch_select_indices(index)

    def keep(self, rows: Sequence[int], starts: Sequence[int], lengths: Sequence[int]) -> None:
        """Keeps `rows`, of each the positions start … start + length, moved to the right edge.

        `starts` and `lengths` are indexed by the rows as they are now.
        """
        if not rows:
            return
        device = self.cache.layers[0].keys.device
        longest = max(lengths[row] for row in rows)
        index = torch.tensor(rows, device=device)
        begin = torch.tensor([starts[row] + lengths[row] - longest for row in rows], device=device)
        size = torch.tensor([lengths[row] for row in rows], device=device)
        column = torch.arange(longest, device=device)
        self._mask = (column >= longest - size[:, None]).long()
        source = (begin[:, None] + column).clamp(min=0)
        for layer in self.cache.layers:
            layer.keys = _taken(layer.keys, index, source)
            layer.values = _taken(layer.values, index, source)


def _taken(states: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """states[rows][:, :, columns of each row]: (B, H, T, D) → (len(rows), H, columns, D)."""
    device = states.device
    picked = states[rows.to(device)]
    where = columns.to(device)[:, None, :, None].expand(-1, picked.shape[1], -1, picked.shape[3])
    return picked.gather(2, where)
