"""Rows of tokens, read behind what several of them begin with. (torch)

The one place where prompts meet the model: it pads, lays rows behind their stems' keys and values,
and hands out the last hidden states. What is asked of those is its callers' affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapterbot.eval.base_model import BaseModel
from adapterbot.eval.forward import Forward, left_padded
from adapterbot.eval.key_values import KeyValues
from adapterbot.eval.questions import Ids

# What several texts begin with, as one variant of the model reads it.
_Stem = tuple[int, Ids]


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


class Reader:
    """Reads batches of rows with one model, and remembers the stems of the last one."""

    def __init__(self, base: BaseModel, forward: Forward) -> None:
        self._base = base
        self._forward = forward
        self._stems: tuple[tuple[_Stem, ...], KeyValues, Tensor] | None = None

    def forget(self) -> None:
        """What was remembered is true no more (there is another adapter under the base)."""
        self._stems = None

    def read(
        self,
        texts: Sequence[Ids],
        stems: Sequence[int],
        variants: Sequence[int],
        more: int | None,
    ) -> Rows:
        """Reads every text, the first `stems[i]` tokens of text i once for all that begin so.

        Args:
            variants: for which variant of the model each text is; they share no stems.
            stems: less than the text's length; in one batch all 0, or none.
            more: how many positions will be read behind the texts; None when none, and then
                nothing is kept for that.
        """
        rests = [text[stem:] for text, stem in zip(texts, stems, strict=True)]
        ids, mask, positions = left_padded(rests, self._base.pad, self._base.device)
        keys: KeyValues | None = None
        if any(stems):
            beginnings = [
                (variant, text[:stem])
                for variant, text, stem in zip(variants, texts, stems, strict=True)
            ]
            distinct = tuple(dict.fromkeys(beginnings))
            shared, lengths = self._read_stems(distinct)
            place = {stem: index for index, stem in enumerate(distinct)}
            owners = [place[stem] for stem in beginnings]
            keys = shared.spread(owners, ids.shape[1] + (more or 0))
            keys.advance(mask)
            mask = keys.mask
            positions = positions + lengths[owners][:, None]
        elif more is not None:
            keys = KeyValues(mask, ids.shape[1] + more)
        hidden = self._forward.hidden(ids, mask, positions, keys and keys.cache, variants)
        return Rows(hidden, positions[:, -1:], keys)

    def _read_stems(self, stems: tuple[_Stem, ...]) -> tuple[KeyValues, Tensor]:
        if self._stems is None or self._stems[0] != stems:
            self._stems = None  # its memory, before more is taken
            texts = [text for _, text in stems]
            ids, mask, positions = left_padded(texts, self._base.pad, self._base.device)
            keys = KeyValues(mask, ids.shape[1])
            variants = [variant for variant, _ in stems]
            self._forward.hidden(ids, mask, positions, keys.cache, variants)
            lengths = torch.tensor([len(text) for text in texts], device=self._base.device)
            self._stems = (stems, keys, lengths)
        return self._stems[1:]
