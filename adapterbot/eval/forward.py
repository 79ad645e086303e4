"""A forward pass in two halves: hidden states everywhere, logits where they are needed. (torch)

Vocabulary × length is by far the largest tensor of an evaluation, and almost all of it is thrown
away. The body runs over everything, the head only over the positions somebody asks for, in chunks.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from adapterbot.errors import OurFailure
from adapterbot.eval.key_values import KeyValues
from adapterbot.eval.trees import laid_out, tree
from adapterbot.weights.caches import cache_argument
from adapterbot.weights.memory import fitting, memory_ended

# 128 MiB in fp32: 256 positions of a vocabulary of 128 k.
_LOGITS_AT_ONCE = 32 * 1024 * 1024

# Attention that adds whatever mask it is given to its scores.
_DENSE = ("sdpa", "eager")

# What is tried out: more tokens than a compressing attention makes one of.
_PROBE = tuple(range(1, 10))

# What a model raises on a cache or a mask that it was not written for.
_NOT_WRITTEN_FOR = (AttributeError, IndexError, RuntimeError, TypeError, ValueError)


class Forward:
    """A causal language model split where its head begins.

    The head's own arithmetic (soft-capping, logit scale, a bias) stays the model's: its forward
    runs with the body replaced by hidden states that are already there.

    Attributes:
        recurrent: what was read cannot be kept by position, taken back or shared: the model has a
            state beside keys and values (Mamba and its hybrids), or a cache of its own kind.
        carries: a batch can be decoded from what was read of it.
        pads: a row says the same behind padding as alone. RWKV and RecurrentGemma let what fills a
            row into their state.
        window: how far back its attention reaches, None without a limit.
        turn: texts that are longer are read with other frequencies (LongRoPE, arXiv 2402.13753):
            a pass has one set of them, and so have keys.
        steer: is told before each pass which of several variants of the model every row is for;
            None where there is one.
    """

    steer: Callable[[Sequence[int]], None] | None = None

    @fitting(
        "the base leaves too little of the device's memory for a single text",
        fix="use a larger device, engine.device_map for several, or engine.quantization",
    )
    def __init__(self, model: Any) -> None:
        """Finds the body, and sees for itself that the halves give what the whole gives.

        Raises:
            OurFailure: they do not, or a short text is too long for the device's memory.
        """
        self.window = _window(model.config.get_text_config())
        self.turn = _turn(model.config.get_text_config())
        self._model = model
        self._stateful = bool(getattr(model, "_is_stateful", False))
        self._chunk = max(1, _LOGITS_AT_ONCE // model.config.get_text_config().vocab_size)
        for body in (model.base_model, model.get_decoder(), getattr(model, "model", model)):
            self._body = body
            self._takes = frozenset(inspect.signature(body.forward).parameters)
            if body is not model and self._halves_agree():
                # Now, before anybody puts different adapters under different rows.
                self.recurrent = self._stateful or not self._goes_on(KeyValues)
                placed = "position_ids" in self._takes and not self.recurrent
                self.pads = placed or self._reads_behind_padding()
                self.recurrent |= not self.pads
                self.carries = self.pads and (not self.recurrent or self._goes_on(self.keys))
                self._reads_trees = self._sees_trees()
                return
        raise OurFailure(
            f"{type(model).__name__} cannot be split into a body and a head",
            fix="report this architecture to adapterbot",
        )

    def keeps(self, shortest: int, longest: int) -> bool:
        """Whether what was read of texts holds as long as they are of these lengths."""
        return self.carries and (longest <= self.turn or shortest > self.turn)

    def keys(self, mask: Tensor, room: int) -> KeyValues:
        """What a batch is decoded from, still empty; the arguments are those of `KeyValues`."""
        own = DynamicCache(config=self._model.config) if self.recurrent else None
        return KeyValues(mask, room, own)

    def tolerates_holes(self, length: int) -> bool:
        """Whether rows of `length` positions may have masked ones between those that count.

        Not where a state or a bias counts positions by where they lie, and not where a window
        does: it would reach less far behind a hole.
        """
        if self.recurrent or (self.window and length > self.window):
            return False
        return self._reads_past_holes

    def tolerates_trees(self, length: int) -> bool:
        """Whether texts of up to `length` tokens may share a row as a tree (see `trees`)."""
        return self.tolerates_holes(length) and self._reads_trees

    def hidden(
        self,
        ids: Tensor,
        mask: Tensor,
        positions: Tensor,
        cache: Any = None,
        variants: Sequence[int] = (),
    ) -> Tensor:
        """Last hidden states.

        Shapes: `ids` and `positions` (rows, new), `mask` (rows, past + new), 1 where a token
        counts, or (rows, 1, new, past + new), which is added to the scores of attention; returns
        (rows, new, width). `cache` is read and appended to. `variants` are the rows', for `steer`.
        """
        if self.steer is not None and variants:
            self.steer(variants)
        arguments: dict[str, Any] = {"attention_mask": mask, "use_cache": cache is not None}
        if cache is not None:
            arguments[cache_argument(self._takes)] = cache
        if "position_ids" in self._takes:
            arguments["position_ids"] = positions
        elif self._stateful:
            # Mamba has nothing but states: there are no keys behind these positions to be masked.
            arguments["attention_mask"] = mask[:, -ids.shape[1] :]
        return self._body(input_ids=ids, **arguments)[0]

    def logits(self, hidden: Tensor) -> Iterator[Tensor]:
        """Logits in fp32 of chosen positions, in chunks: (n, width) → (≤ chunk, vocabulary)."""
        return map(self._headed, hidden.split(self._chunk))

    def _headed(self, hidden: Tensor) -> Tensor:
        ids = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
        with self._body_returns(hidden[None]):
            logits: Tensor = self._model(input_ids=ids, use_cache=False).logits
        return logits[0].float()

    @contextmanager
    def _body_returns(self, hidden: Tensor) -> Iterator[None]:
        own = self._body.__dict__.get("forward")
        self._body.forward = lambda *_, **__: _HiddenOnly(hidden)
        try:
            yield
        finally:
            if own is None:
                del self._body.forward
            else:
                self._body.forward = own

    @cached_property
    def _reads_past_holes(self) -> bool:
        if "position_ids" not in self._takes:
            return False
        # As wide as the text: what reads into it, or counts it, is then off by more than bf16 is.
        size = max(3, min(2 * len(_PROBE), self.window or 2 * len(_PROBE)) // 2)
        text, hole = list(_PROBE[:size]), list(_PROBE[::-1][:size])
        device = self._model.device
        ids = torch.tensor([text], device=device)
        places = torch.arange(size, device=device)[None]
        holed = torch.tensor([[*text[:2], *hole, *text[2:]]], device=device)
        positions = torch.cat([places[:, :2], torch.ones_like(places), places[:, 2:]], 1)
        mask = torch.ones_like(holed)
        mask[:, 2 : 2 + size] = 0
        with torch.inference_mode():
            want = self.hidden(ids, torch.ones_like(ids), places)
            got = self.hidden(holed, mask, positions)
        return self._alike(want[:, 2:], got[:, 2 + size :])

    @torch.inference_mode()
    def _sees_trees(self) -> bool:
        """Whether a token in a tree is what it is where its text stands alone."""
        attention = self._model.config.get_text_config()._attn_implementation  # noqa: SLF001
        if attention not in _DENSE or not self.tolerates_holes(0):
            return False
        device = self._model.device
        # The second is read behind all of the first: see the width of a hole.
        first, second = _PROBE, _PROBE[::-1]
        own = tree([(*first, 1), (*second, 1)])
        ids = torch.tensor([[1, 2, *own.ids]], device=device)
        shift, seen = laid_out([own], torch.ones_like(ids), self._model.dtype)
        apart = torch.tensor([[1, 2, *first], [1, 2, *second]], device=device)
        places = torch.arange(ids.shape[1], device=device)[None]
        try:
            got = self.hidden(ids, seen, places + shift)[0, 2:]
        except _NOT_WRITTEN_FOR as error:
            if memory_ended(error):
                raise
            return False  # it makes its masks itself, of two dimensions
        alone = places[:, : apart.shape[1]].expand(2, -1)
        want = self.hidden(apart, torch.ones_like(apart), alone)[:, 2:]
        return self._alike(want.flatten(0, 1), got)

    @torch.inference_mode()
    def _goes_on(self, empty: Callable[[Tensor, int], KeyValues]) -> bool:
        """Whether a token behind what was kept is what it is where all is read at once."""
        ids, mask, positions = left_padded([_PROBE, (*_PROBE, 1, 2, 3)], 0, self._model.device)
        try:
            keys = empty(mask[:, :-1], ids.shape[1])
            self.hidden(ids[:, :-1], keys.mask, positions[:, :-1], keys.cache)
            keys.keep([1, 0])
            keys.advance()
            last = positions.flip(0)[:, -1:]
            got = self.hidden(ids.flip(0)[:, -1:], keys.mask, last, keys.cache)
        except _NOT_WRITTEN_FOR as error:
            if memory_ended(error):
                raise
            return False  # its layers keep something else
        return self._alike(self.hidden(ids, mask, positions)[:, -1:], got.flip(0))

    @torch.inference_mode()
    def _reads_behind_padding(self) -> bool:
        """Whether a row is what it is alone, where a longer one shares its batch."""
        ids, mask, positions = left_padded([_PROBE, (*_PROBE, 1, 2, 3)], 0, self._model.device)
        want = self.hidden(ids[:1, 3:], mask[:1, 3:], positions[:1, 3:])
        return self._alike(want, self.hidden(ids, mask, positions)[:1, 3:])

    def _alike(self, want: Tensor, got: Tensor) -> bool:
        """Whether two ways to the same hidden states differ by rounding only, at every position.

        As a whole: a GPU computes with a mask by another kernel than without, and in bf16 single
        numbers of hundreds then differ by several percent. By the weights' dtype: Mamba's states
        come out in fp32. In bf16 another kernel makes 0.6 % of a small Llama's, and what is read
        wrong 10 % and more.
        """
        apart = (want - got).float().norm(dim=-1) / want.float().norm(dim=-1)
        return bool(apart.max() < (1e-3 if self._model.dtype == torch.float32 else 0.05))

    @torch.inference_mode()
    def _halves_agree(self) -> bool:
        ids = torch.tensor([[1, 2, 3]], device=self._model.device)
        whole = self._model(input_ids=ids, use_cache=False).logits[0].float()
        hidden = self.hidden(ids, torch.ones_like(ids), torch.arange(3, device=ids.device)[None])
        # Spread over several devices, a base gives its logits back where its ids were.
        halves = torch.cat(list(self.logits(hidden[0]))).to(whole.device)
        return bool(torch.allclose(whole, halves, rtol=1e-2, atol=1e-2))


def _window(config: Any) -> int | None:
    """How many positions back a layer sees that does not see all."""
    found = [getattr(config, name, None) for name in ("attention_chunk_size", "window_size")]
    if getattr(config, "use_sliding_window", True):
        found.append(getattr(config, "sliding_window", None))
    return min((int(size) for size in found if size), default=None)


def _turn(config: Any) -> int:
    """The longest text that every layer reads with the same frequencies as the shortest."""
    found = getattr(config, "rope_parameters", None) or {}
    # One set for all layers, or one for each kind of them.
    sets = [found, *(one for one in found.values() if isinstance(one, dict))]
    turns = [
        int(one["original_max_position_embeddings"])
        for one in sets
        if one.get("rope_type") == "longrope"
    ]
    return min(turns, default=sys.maxsize)


class _HiddenOnly:
    """What a body returns, with nothing in it but the last hidden state."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, index: int | slice) -> Any:
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def left_padded(
    rows: Sequence[Sequence[int]], pad: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of token ids as one matrix, short ones filled on the left.

    Returns: ids, mask (1 for a real token) and positions (which count real tokens only), each
        (rows, longest).
    """
    longest = max(map(len, rows))
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in rows])
    positions = torch.arange(longest) - (longest - lengths)[:, None]
    mask = (positions >= 0).long()
    return ids.to(device), mask.to(device), positions.clamp(min=0).to(device)


def right_padded(
    rows: Sequence[Sequence[int]], pad: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """As `left_padded`, short rows filled on the right."""
    longest = max(map(len, rows))
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.tensor([list(row) + [pad] * (longest - len(row)) for row in rows])
    positions = torch.arange(longest).expand(len(rows), -1)
    mask = (positions < lengths[:, None]).long()
    return ids.to(device), mask.to(device), positions.to(device)
