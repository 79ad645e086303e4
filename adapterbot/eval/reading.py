"""Rows of tokens, read behind what several of them begin with. (torch)

The one place where prompts meet the model: it pads, lays rows behind their stems' keys and values,
and hands out the last hidden states. What is asked of those is its callers' affair. Rows of a batch
are decoded together whatever their lengths; they are read in groups of like length, where the
padding that this spares is worth the passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adapterbot.eval.base_model import BaseModel
from adapterbot.eval.forward import Forward, left_padded
from adapterbot.eval.key_values import KeyValues
from adapterbot.eval.questions import Ids
from adapterbot.eval.trees import Tree, laid_out, scores

# What several texts begin with, as one variant of the model reads it.
_Stem = tuple[int, Ids]

# What a pass costs beyond its positions, in positions: a few milliseconds of overhead on a CPU, all
# weights and the launches of their kernels on a GPU.
_PASS = {"cpu": 128, "cuda": 4096}


@dataclass
class Rows:
    """What was read of a batch.

    Shapes: `hidden` (rows, new, width), filled on the left, so that the last position of every row
    is its last token; `position` (rows, 1), the place of that token in its text.

    Attributes:
        keys: what the next pass attends to; None where none was asked for.
    """

    hidden: Tensor
    position: Tensor
    keys: KeyValues | None


@dataclass(frozen=True)
class _Stems:
    """Beginnings that were read, their keys and values, and how long each is."""

    stems: tuple[_Stem, ...]
    keys: KeyValues
    lengths: Tensor


class Reader:
    """Reads batches of rows with one model, and remembers the stems of the last one."""

    def __init__(self, base: BaseModel, forward: Forward) -> None:
        self._base = base
        self._forward = forward
        self._stems: _Stems | None = None

    def forget(self) -> None:
        """What was remembered is true no more (there is another adapter under the base)."""
        self._stems = None

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Rows of these lengths in the groups in which it is cheapest to read them here."""
        cost = _PASS.get(self._base.device.type, _PASS["cpu"])
        if not self._forward.pads:
            cost = 0  # then no row is worth padding
        short = [row for row, length in enumerate(lengths) if length <= self._forward.turn]
        long = [row for row, length in enumerate(lengths) if length > self._forward.turn]
        return [
            [side[place] for place in group]
            for side in (short, long)
            for group in like_lengths([lengths[row] for row in side], cost)
        ]

    def read(
        self,
        texts: Sequence[Ids],
        stems: Sequence[int],
        variants: Sequence[int],
        more: int | None,
        trees: Sequence[Tree] = (),
    ) -> Rows:
        """Reads every text, the first `stems[i]` tokens of text i once for all that begin so.

        Args:
            variants: for which variant of the model each text is; they share no stems.
            stems: less than the text's length; in one batch all 0, or none.
            more: how many positions will be read behind the texts; None when none, and then
                nothing is kept for that.
            trees: what each text ends in, where it does (see `trees`).
        """
        rests = [text[stem:] for text, stem in zip(texts, stems, strict=True)]
        owners: list[int] = []
        shared: _Stems | None = None
        if any(stems):
            beginnings = [
                (variant, text[:stem])
                for variant, text, stem in zip(variants, texts, stems, strict=True)
            ]
            shared = self._read_stems(tuple(dict.fromkeys(beginnings)))
            place = {stem: index for index, stem in enumerate(shared.stems)}
            owners = [place[stem] for stem in beginnings]
        groups = self.groups([len(rest) for rest in rests])
        # States cannot be joined.
        if len(groups) == 1 or (self._forward.recurrent and more is not None):
            return self._read_group(rests, variants, shared, owners, more, trees)
        parts = [
            self._read_group(
                [rests[row] for row in group],
                [variants[row] for row in group],
                shared,
                [owners[row] for row in group] if shared else [],
                more if more is None else 0,
                [trees[row] for row in group] if trees else (),
            )
            for group in groups
        ]
        return _joined(groups, parts, more)

    def _read_group(
        self,
        rests: Sequence[Ids],
        variants: Sequence[int],
        shared: _Stems | None,
        owners: list[int],
        more: int | None,
        trees: Sequence[Tree],
    ) -> Rows:
        """What follows the stems, or all where there are none, in one pass."""
        ids, real, positions = left_padded(rests, self._base.pad, self._base.device)
        keys: KeyValues | None = None
        mask = real
        if shared:
            keys = shared.keys.spread(owners, ids.shape[1] + (more or 0))
            keys.advance(real)
            mask = keys.mask
            positions = positions + shared.lengths[owners][:, None]
        elif more is not None:
            keys = self._forward.keys(real, ids.shape[1] + more)
        if trees:
            shift, seen = laid_out(trees, real, self._base.dtype)
            positions = positions + shift
            before = scores(mask[:, None, None, : -ids.shape[1]] > 0, self._base.dtype)
            mask = torch.cat([before.expand(-1, -1, ids.shape[1], -1), seen], -1)
        hidden = self._forward.hidden(ids, mask, positions, keys and keys.cache, variants)
        return Rows(hidden, positions[:, -1:], keys)

    def _read_stems(self, stems: tuple[_Stem, ...]) -> _Stems:
        if self._stems is None or self._stems.stems != stems:
            self._stems = None  # its memory, before more is taken
            texts = [text for _, text in stems]
            ids, mask, positions = left_padded(texts, self._base.pad, self._base.device)
            keys = KeyValues(mask, ids.shape[1])
            variants = [variant for variant, _ in stems]
            self._forward.hidden(ids, mask, positions, keys.cache, variants)
            lengths = torch.tensor([len(text) for text in texts], device=self._base.device)
            self._stems = _Stems(stems, keys, lengths)
        return self._stems


def _joined(groups: Sequence[list[int]], parts: Sequence[Rows], more: int | None) -> Rows:
    """Rows that were read in groups as if they had been read in one pass."""
    count = sum(map(len, groups))
    longest = max(part.hidden.shape[1] for part in parts)
    first = parts[0]
    hidden = first.hidden.new_zeros(count, longest, first.hidden.shape[-1])
    position = first.position.new_zeros(count, 1)
    for group, part in zip(groups, parts, strict=True):
        hidden[group, longest - part.hidden.shape[1] :] = part.hidden
        position[group] = part.position
    if more is None:
        return Rows(hidden, position, None)
    kept = [(group, part.keys) for group, part in zip(groups, parts, strict=True) if part.keys]
    return Rows(hidden, position, KeyValues.joined(kept, more))


def like_lengths(lengths: Sequence[int], cost: int) -> list[list[int]]:
    """Rows parted into groups of like length, so that what is padded and what passes cost is least.

    Rows in order of length are cut where that saves most: the best end of every beginning of that
    order is found from the best ends of the shorter ones.

    Args:
        cost: what a pass costs beyond its positions, in positions.

    Returns: the rows of each group, in their own order where there is but one group.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    longest = np.array([lengths[row] for row in order])
    best = np.zeros(len(order) + 1, dtype=np.int64)
    starts = [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        costs = best[:end] + longest[:end] * np.arange(end, 0, -1) + cost
        starts[end] = int(costs.argmin())
        best[end] = costs[starts[end]]
    groups: list[list[int]] = []
    end = len(order)
    while end:
        groups.append(sorted(order[starts[end] : end]))
        end = starts[end]
    return groups
