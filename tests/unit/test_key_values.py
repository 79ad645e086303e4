"""Keys and values of rows that were read apart, put together."""

from __future__ import annotations

import weakref

import pytest
import torch

from adapterbot.eval import key_values
from adapterbot.eval.key_values import KeyValues

LAYERS = 6


def read(rows: int, length: int, seed: int) -> KeyValues:
    source = torch.Generator().manual_seed(seed)
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[0, 0] = 0
    keys = KeyValues(mask, length)
    for layer in range(LAYERS):
        made = (torch.randn(rows, 2, length, 4, generator=source) for _ in range(2))
        keys.cache.update(*made, layer)
    return keys


def test_rows_that_were_read_apart_lie_behind_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [([2, 0], read(2, 5, seed=1)), ([1], read(1, 3, seed=2))]
    masks = [keys.mask.clone() for _, keys in parts]
    want = [[layer.keys.clone() for layer in keys.cache.layers] for _, keys in parts]
    held = [weakref.ref(layer.keys) for _, keys in parts for layer in keys.cache.layers]
    alive: list[int] = []
    blank = key_values._RoomyLayer.blank

    def counted(*args: int) -> object:
        alive.append(sum(one() is not None for one in held))
        return blank(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(key_values._RoomyLayer, "blank", counted)
    whole = KeyValues.joined(parts, more=4)
    for left, count in zip(range(LAYERS, 0, -1), alive, strict=True):
        assert count <= 2 * left + 1, "nothing is held twice for long"
    for (rows, _), mask, layers in zip(parts, masks, want, strict=True):
        start = 5 - mask.shape[1]
        assert torch.equal(whole.mask[rows, start:], mask)
        assert not whole.mask[rows, :start].any()
        for layer, keys in zip(whole.cache.layers, layers, strict=True):
            assert layer.keys is not None
            assert torch.equal(layer.keys[rows, :, start:], keys)
