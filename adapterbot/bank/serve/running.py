"""The rows that are being answered: they join a batch when they come and leave it when they end.

All share one key-value cache, filled up on the left; a row that joins is read by itself, and its
keys are put beside the others'. Keys carry their positions, so filling up moves nothing. (torch)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from adapterbot.bank.serve.jobs import Ask, Job
from adapterbot.weights.caches import cache_argument


class Base(Protocol):
    """A loaded base model, as `eval.base_model` loads one."""

    @property
    def model(self) -> Any:
        """A transformers model."""

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""

    @property
    def device(self) -> torch.device:
        """Where it lies."""

    @property
    def eos(self) -> frozenset[int]:
        """Token ids that end an answer."""

    @property
    def pad(self) -> int:
        """The id that fills short rows; it is masked."""

    @property
    def context(self) -> int | None:
        """How many positions it has."""


Choose = Callable[[Tensor, Sequence[Any], Sequence[int]], list[int]]
"""(rows, vocabulary) logits, each row's choice and how many tokens it has → its next token."""


class Running:
    """A batch of jobs, whoever their tenants are.

    Attributes:
        jobs: one for each row, in order.
    """

    def __init__(self, base: Base, choose: Choose, select: Callable[[Sequence[Ask]], None]) -> None:
        """An empty batch.

        Args:
            base: the model.
            choose: how the next tokens come about.
            select: makes what each row asked for live in the pass that follows.
        """
        self.jobs: list[Job] = []
        self._base = base
        self._choose = choose
        self._select = select
        self._cache: Any = None
        self._mask: Tensor | None = None
        self._next: list[int] = []
        takes = inspect.signature(base.model.forward).parameters
        self._goes_on_from = cache_argument(takes)
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}

    @torch.inference_mode()
    def read(self, jobs: Sequence[Job]) -> list[int]:
        """Reads the prompts of new jobs, for whom there are rows then, and chooses their first
        tokens. Whatever is raised, the batch is as it was."""
        prompts = [job.ask.prompt for job in jobs]
        longest = max(map(len, prompts))
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        ids = torch.tensor([[self._base.pad] * (longest - len(p)) + list(p) for p in prompts])
        positions = torch.arange(longest) - (longest - lengths)[:, None]
        mask = (positions >= 0).long()
        cache, logits = self._pass(
            [job.ask for job in jobs],
            ids.to(self._base.device),
            mask.to(self._base.device),
            positions.clamp(min=0).to(self._base.device),
            None,
        )
        tokens = self._chosen(logits, jobs)
        self._merge(cache, mask.to(self._base.device))
        return tokens

    @torch.inference_mode()
    def join(self, jobs: Sequence[Job], tokens: list[int]) -> None:
        """Takes jobs in whose prompts were read, and gives each its first token."""
        self.jobs += jobs
        self._give(jobs, tokens)
        self._next += tokens
        self.drop_ended()

    @torch.inference_mode()
    def step(self) -> None:
        """One more token for every job.

        Raises:
            AdapterbotError: a tenant cannot be live any more; nothing was read.
        """
        assert self._mask is not None  # noqa: S101 there are rows
        asks = [job.ask for job in self.jobs]
        ids = torch.tensor(self._next, device=self._base.device)[:, None]
        mask = F.pad(self._mask, (0, 1), value=1)
        positions = self._mask.sum(1, keepdim=True)
        self._cache, logits = self._pass(asks, ids, mask, positions, self._cache)
        # Not before the tokens are chosen: until then `take_back` takes all of the step back.
        self._next, self._mask = self._chosen(logits, self.jobs), mask
        self._give(self.jobs, self._next)
        self.drop_ended()

    def drop_ended(self) -> None:
        """Lets go of the rows of jobs that have ended or that nobody waits for."""
        kept = [i for i, job in enumerate(self.jobs) if not (job.ended or job.cancelled)]
        if len(kept) == len(self.jobs):
            return
        self.jobs = [self.jobs[index] for index in kept]
        self._next = [self._next[index] for index in kept]
        if not kept or self._mask is None:
            self._cache = self._mask = None
            return
        index = torch.tensor(kept, device=self._base.device)
        mask = self._mask[index]
        first = int(mask.any(0).int().argmax())
        self._mask = mask[:, first:]
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[index, :, first:], layer.values[index, :, first:]

    def take_back(self) -> None:
        """After a step that was broken off: what its first layers have read already."""
        assert self._mask is not None  # noqa: S101 there are rows
        length = self._mask.shape[1]
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]

    def clear(self) -> None:
        """Lets go of everything."""
        self.jobs, self._next = [], []
        self._cache = self._mask = None

    def _pass(
        self, asks: Sequence[Ask], ids: Tensor, mask: Tensor, positions: Tensor, cache: Any
    ) -> tuple[Any, Tensor]:
        from transformers import DynamicCache

        self._select(asks)
        # Without the model's config every layer keeps all positions; windows are masked.
        kept = DynamicCache() if cache is None else cache
        done = self._base.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            **{self._goes_on_from: kept},
            **self._options,
        )
        return kept, done.logits[:, -1].float()

    def _chosen(self, logits: Tensor, jobs: Sequence[Job]) -> list[int]:
        return self._choose(
            logits, [job.ask.choice for job in jobs], [len(job.answer) for job in jobs]
        )

    @staticmethod
    def _give(jobs: Sequence[Job], tokens: Sequence[int]) -> None:
        for job, token in zip(jobs, tokens, strict=True):
            if not job.ended:
                job.take(token)

    def _merge(self, cache: Any, mask: Tensor) -> None:
        """Puts new rows under those that are there, the shorter filled up on the left."""
        if self._mask is None:
            self._cache, self._mask = cache, mask
            return
        rows, before = self._mask.shape
        length = max(before, mask.shape[1])
        try:
            both = torch.cat([_filled(self._mask, length, 1), _filled(mask, length, 1)])
            for old, new in zip(self._cache.layers, cache.layers, strict=True):
                old.keys = torch.cat([_filled(old.keys, length, 2), _filled(new.keys, length, 2)])
                old.values = torch.cat(
                    [_filled(old.values, length, 2), _filled(new.values, length, 2)]
                )
        except torch.OutOfMemoryError:
            for layer in self._cache.layers:
                layer.keys = layer.keys[:rows, :, -before:]
                layer.values = layer.values[:rows, :, -before:]
            raise
        self._mask = both


def _filled(tensor: Tensor, length: int, dimension: int) -> Tensor:
    missing = length - tensor.shape[dimension]
    if not missing:
        return tensor
    shape = list(tensor.shape)
    shape[dimension] = missing
    return torch.cat([tensor.new_zeros(shape), tensor], dim=dimension)
