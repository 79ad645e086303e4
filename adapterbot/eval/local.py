"""One loaded base of this process, adapters exchanged under it. (torch)

How an answer comes about is `respondent`'s; what is asked, cached and scored is `evaluation`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property

from torch import nn

from adapterbot.eval.answers import Answer, Sample
from adapterbot.eval.base_model import BaseModel
from adapterbot.eval.batches import Batcher
from adapterbot.eval.found_base import identity
from adapterbot.eval.passes import LocalPasses
from adapterbot.eval.prompts import Prompts
from adapterbot.eval.questions import (
    Attached,
    Composite,
    Identity,
    Ids,
    Question,
    Subject,
    Unanswered,
)
from adapterbot.eval.respondent import Respondent
from adapterbot.eval.settings import EngineSettings
from adapterbot.weights.adapter import Adapter, load_adapter
from adapterbot.weights.attachment import attach
from adapterbot.weights.compatibility import rowless_modules
from adapterbot.weights.families import as_named
from adapterbot.weights.memory import fitting
from adapterbot.weights.peft_dir import AdapterFiles
from adapterbot.weights.via_peft import attached_by_peft, renamed

# How many adapters stay under the base: the baseline and the one it is compared with.
_SLOTS = 2


class LocalModel:
    """A base model of this process that answers under one adapter after another.

    Attributes:
        passes: what computes whole batches under the adapter that is there.
    """

    def __init__(self, base: BaseModel, settings: EngineSettings) -> None:
        self.base = base
        self.settings = settings
        prompts = Prompts(base.tokenizer, base.name)
        batcher = Batcher(settings.token_budget, base.device.type)
        self.passes = LocalPasses(base, prompts.text)
        self._respondent = Respondent(prompts, self.passes, batcher)
        self._attachment = attach(base.model, {})
        self._composites: dict[str, Attached] = {}

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def device(self) -> str:
        return self.base.device_name

    @property
    def gpus(self) -> int:
        return self.base.gpus

    @property
    def dtype(self) -> str:
        return str(self.base.dtype).removeprefix("torch.")

    def identity(self) -> Identity:
        """The base's files, the settings, and the libraries' versions."""
        return identity(self.base.digest, self.settings, self.base.device, self.base.dtype)

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer | Unanswered]]:
        """As `Respondent.answers`."""
        return self._respondent.answers(questions)

    def tokens(self, text: str) -> Ids:
        """An answer as the base's tokenizer would write it."""
        return self._respondent.prompts.answer(text)

    def close(self) -> None:
        """Takes every adapter off the base."""
        for attached in self._composites.values():
            attached.detach()
        self._composites.clear()
        self._attachment.detach()

    @contextmanager
    def under(self, files: Subject | None, digest: str) -> Iterator[None]:
        """The adapter under the base inside, the bare base after."""
        if files is None:
            yield
            return
        if not isinstance(files, AdapterFiles):
            with self._composite(files, digest).selected():
                yield
            return
        if self._left_to_peft(files):
            with attached_by_peft(self.base.model, files):
                yield
            return
        if digest not in self._attachment.names:
            adapter = load_adapter(files)
            self._make_room({digest})
            self._attach(digest, adapter)
        with self._attachment.selected(digest):
            yield

    def by_row(self, adapters: Mapping[str, AdapterFiles]) -> AbstractContextManager[None] | None:
        """As `SideBySide.by_row`: not for adapters that PEFT attaches."""
        if any(map(self._left_to_peft, adapters.values())):
            return None
        read = {digest: load_adapter(files) for digest, files in adapters.items()}
        if not all(map(self.rows_may_differ, read.values())):
            return None
        self._make_room(adapters)
        # In the order given: that of a set would lay the ranks out otherwise in every process.
        for digest, adapter in read.items():
            if digest not in self._attachment.names:
                self._attach(digest, adapter)
        return self._steered(tuple(adapters))

    def _attach(self, digest: str, adapter: Adapter) -> None:
        with _beside_the_base(adapter.files.shown):
            self._attachment.swap(digest, adapter)

    def _left_to_peft(self, files: AdapterFiles) -> bool:
        return bool(files.left_to_peft) or renamed(self.base.model, files.modules)

    def rows_may_differ(self, adapter: Adapter) -> bool:
        """Whether some rows of a batch may be under `adapter` while others are not."""
        modules = dict(as_named(self.base.model, adapter.updates).named_modules())
        return not adapter.replaced and self._rowless.isdisjoint(map(modules.get, adapter.updates))

    @cached_property
    def _rowless(self) -> frozenset[nn.Module]:
        return rowless_modules(self.base.model)

    @contextmanager
    def _steered(self, digests: Sequence[str]) -> Iterator[None]:
        self.passes.steer(
            lambda variants: self._attachment.select_rows([digests[one] for one in variants])
        )
        try:
            yield
        finally:
            self.passes.steer(None)
            self._attachment.select(None)

    def _make_room(self, coming: Collection[str]) -> None:
        """Drops the adapters that were there longest, so that those to come make no more than are
        kept, or are alone."""
        others = [name for name in self._attachment.names if name not in coming]
        for name in others[: max(0, len(others) + len(coming) - _SLOTS)]:
            self._attachment.drop(name)

    def shares(
        self, composite: Composite, answered: Sequence[tuple[Sample, str]]
    ) -> tuple[float, ...]:
        """As `Model.shares`, over the tokens of all answers alike."""
        prompts = self._respondent.prompts
        attached = self._composite(composite, composite.digest)
        totals = [0.0] * len(composite.names)
        with attached.selected():
            read = prompts.prompts([sample for sample, _ in answered])
            for prompt, (_, text) in zip(read, answered, strict=True):
                answer = prompts.answer(text)
                if self.base.context:
                    answer = answer[: max(0, self.base.context - len(prompt))]
                if prompt and answer:
                    found = attached.shares(prompt, answer)
                    totals = [total + own for total, own in zip(totals, found, strict=True)]
        whole = sum(totals)
        return tuple(total / whole for total in totals) if whole else ()

    def _composite(self, files: Composite, digest: str) -> Attached:
        if digest not in self._composites:
            while len(self._composites) >= _SLOTS:
                self._composites.pop(next(iter(self._composites))).detach()
            with _beside_the_base(files.shown):
                self._composites[digest] = files.attach(self.base.model)
        return self._composites[digest]


def _beside_the_base(shown: str) -> AbstractContextManager[None]:
    return fitting(
        "does not fit into the device's memory beside the base",
        file=shown,
        fix="use a larger device, engine.device_map for several, or engine.quantization",
    )
