"""More than one GPU or machine: the same engine, its batches computed by Ray actors. (torch, ray)

What is put into a batch is decided here exactly as in one process, and every actor computes a
batch exactly as one process would: so the digits are the same, however many actors there are and
whichever of them dies. What differs from run to run is only who computed what.

The base must be reachable under the same name wherever an actor runs; adapters travel with Ray.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
import torch

from adapterbot import TOOL
from adapterbot.eval.answers import Answer, Sample
from adapterbot.eval.base_model import load_alone
from adapterbot.eval.batches import Batcher, no_family, one_pass, ordered
from adapterbot.eval.generation import GenerationRequest
from adapterbot.eval.joining import seen_everywhere
from adapterbot.eval.local import LocalModel
from adapterbot.eval.loglikelihood import Likelihood, LikelihoodRequest
from adapterbot.eval.passes import Limits
from adapterbot.eval.pool import Pool
from adapterbot.eval.prompts import Prompts
from adapterbot.eval.questions import (
    Composite,
    Identity,
    Ids,
    Question,
    Subject,
    Unanswered,
)
from adapterbot.eval.respondent import Respondent
from adapterbot.eval.settings import EngineSettings
from adapterbot.weights.peft_dir import CONFIG_NAME, WEIGHTS_NAME, AdapterFiles, read_adapter_dir

_Request = TypeVar("_Request")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class _Sent:
    """An adapter or a composite on its way: its digest, its files as an object that Ray keeps, and
    what reads them."""

    digest: str
    files: tuple[Any]  # a reference: inside a tuple, so that an actor fetches it only when new
    read: Callable[[Path], Subject]


@dataclass(frozen=True)
class _Loaded:
    """What an actor says of the base that it has loaded."""

    tokenizer: Any
    limits: Limits
    device: str
    dtype: str
    identity: Identity
    tool: str


class _Worker:
    """One process with the base loaded: an actor."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._digest = ""
        self._folder = tempfile.TemporaryDirectory(prefix="adapterbot-worker-")

    def load(self, base: str, settings: EngineSettings, threads: int) -> _Loaded:
        """Loads the base."""
        torch.set_num_threads(threads)
        self._model = LocalModel(load_alone(base, settings), settings)
        return _Loaded(
            tokenizer=self._model.base.tokenizer,
            limits=self._model.passes.limits,
            device=self._model.device,
            dtype=self._model.dtype,
            identity=self._model.identity(),
            tool=TOOL,
        )

    def compute(self, what: str, adapter: _Sent | None, batch: Sequence[Any]) -> Any:
        self._put_under(adapter)
        with torch.inference_mode():
            return getattr(self._model.passes, what)(batch)

    def shares(self, composite: _Sent, answered: Sequence[tuple[Sample, str]]) -> Any:
        self._put_under(None)
        files = self._files(composite)
        assert not isinstance(files, AdapterFiles)  # noqa: S101 one adapter wrote all of it
        return self._model.shares(files, answered)

    def _put_under(self, adapter: _Sent | None) -> None:
        digest = adapter.digest if adapter else ""
        if digest == self._digest:
            return
        self._stack.close()
        self._digest = ""
        self._model.passes.forget()
        if adapter:
            files = self._files(adapter)
            # A composite's copy has a digest of its own, by which the model knows it.
            known = digest if isinstance(files, AdapterFiles) else files.digest
            self._stack.enter_context(self._model.under(files, known))
        self._digest = digest

    def _files(self, adapter: _Sent) -> Subject:
        folder = Path(self._folder.name) / adapter.digest
        if not folder.exists():
            for name, content in ray.get(adapter.files[0]).items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
        return adapter.read(folder)


class _RemotePasses:
    """Batches computed by a pool, under the adapter that is current."""

    def __init__(self, pool: Pool, limits: Limits) -> None:
        self._pool = pool
        self.limits = limits
        self.adapter: _Sent | None = None

    def answer(self, requests: Sequence[GenerationRequest]) -> list[Ids | None]:
        found: list[Ids | None] = self._computed("answer", requests)
        return found

    def check(self, requests: Sequence[GenerationRequest]) -> list[tuple[Ids | None, bool]]:
        found: list[tuple[Ids | None, bool]] = self._computed("check", requests)
        return found

    def loglikelihoods(self, requests: Sequence[LikelihoodRequest]) -> list[tuple[Likelihood, ...]]:
        found: list[tuple[Likelihood, ...]] = self._computed("loglikelihoods", requests)
        return found

    def _computed(self, what: str, batch: Sequence[Any]) -> Any:
        adapter = self.adapter
        return self._pool.ask(lambda actor: actor.compute.remote(what, adapter, batch))

    def forget(self) -> None:
        """Nothing: an actor sees for itself when its adapter changes."""


class _ManyBatcher(Batcher):
    """The same batches as `Batcher`, several computed at once, results in the same order."""

    def __init__(self, budget: int | None, device: str, lanes: int) -> None:
        super().__init__(budget, device)
        self._lanes = lanes

    def run(
        self,
        requests: Mapping[int, _Request],
        length: Callable[[_Request], int],
        compute: Callable[[Sequence[_Request]], Sequence[_Result]],
        *,
        family: Callable[[_Request], Hashable] = no_family,
        passes: Callable[[_Request], int] = one_pass,
    ) -> Iterator[tuple[int, _Result]]:
        requests = dict(requests)
        waiting = ordered(requests, length, family, passes)
        running: deque[tuple[list[int], Future[Sequence[_Result]]]] = deque()
        with ThreadPoolExecutor(self._lanes) as threads:
            while waiting or running:
                while waiting and len(running) < 2 * self._lanes:
                    batch = self.head(waiting, requests, length)
                    waiting = waiting[len(batch) :]
                    work = threads.submit(
                        self._whole, [requests[key] for key in batch], length, compute
                    )
                    running.append((batch, work))
                keys, first = running.popleft()
                try:
                    results = first.result()
                except BaseException:
                    threads.shutdown(wait=False, cancel_futures=True)
                    raise
                yield from zip(keys, results, strict=True)

    def _whole(
        self,
        batch: Sequence[_Request],
        length: Callable[[_Request], int],
        compute: Callable[[Sequence[_Request]], Sequence[_Result]],
    ) -> Sequence[_Result]:
        """A batch, or its halves where a worker has too little memory for all of it."""
        results = self._attempt(batch, compute)
        if results is not None:
            return results
        self.shrink(list(map(length, batch)))
        middle = len(batch) // 2
        return [
            *self._whole(batch[:middle], length, compute),
            *self._whole(batch[middle:], length, compute),
        ]


class ClusterModel:
    """A base model on every GPU of a Ray cluster, or on its processors where it has none."""

    def __init__(self, base: Path | str, settings: EngineSettings, address: str) -> None:
        """Starts the actors.

        Args:
            base: a directory that every machine sees under this path, or a name on the Hub.
            address: of a running cluster; `local` starts one on this machine.

        Raises:
            InputError: there is no cluster at the address, or the base cannot be loaded.
            OurFailure: no actor came up.
        """
        self.name = str(base)
        self._settings = settings
        self.pool = Pool(_Worker, settings, address, seen_everywhere(base), settings)
        self._loaded: _Loaded = self.pool.loaded
        self._passes, self._respondent = self._own()

    def _own(self) -> tuple[_RemotePasses, Respondent]:
        """What no other thread may use: the adapter that is current, and a tokenizer."""
        passes = _RemotePasses(self.pool, self._loaded.limits)
        respondent = Respondent(
            Prompts(deepcopy(self._loaded.tokenizer), self.name),
            passes,
            _ManyBatcher(self._settings.token_budget, self._loaded.limits.device, self.pool.count),
        )
        return passes, respondent

    def beside(self) -> ClusterModel:
        """Another model on the same actors, for another thread and another adapter. It goes when
        this one is closed."""
        other = copy(self)
        other._passes, other._respondent = self._own()  # noqa: SLF001 - of this very class
        return other

    @property
    def device(self) -> str:
        return f"{self.pool.count} × {self._loaded.device}"

    @property
    def gpus(self) -> int:
        return self.pool.count if self._loaded.limits.device == "cuda" else 0

    @property
    def dtype(self) -> str:
        return self._loaded.dtype

    def identity(self) -> Identity:
        """That of one process: the answers are the same, so they share a cache."""
        return self._loaded.identity

    @contextmanager
    def under(self, files: Subject | None, digest: str) -> Iterator[None]:
        """The adapter under every actor's base inside."""
        if files is not None:
            self._passes.adapter = _sent(files, digest)
        try:
            yield
        finally:
            self._passes.adapter = None

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer | Unanswered]]:
        """As `Respondent.answers`."""
        return self._respondent.answers(questions)

    def tokens(self, text: str) -> Ids:
        """An answer as the base's tokenizer would write it."""
        return self._respondent.prompts.answer(text)

    def shares(
        self, composite: Composite, answered: Sequence[tuple[Sample, str]]
    ) -> tuple[float, ...]:
        """As `Model.shares`, by one actor."""
        sent = _sent(composite, composite.digest)
        found: tuple[float, ...] = self.pool.ask(lambda actor: actor.shares.remote(sent, answered))
        return found

    def close(self) -> None:
        """Ends the actors, and the cluster if it was started here."""
        self.pool.close()


def _sent(files: Subject, digest: str) -> _Sent:
    """What an actor on another machine needs of a subject."""
    if isinstance(files, AdapterFiles):
        content = {name: (files.path / name).read_bytes() for name in (CONFIG_NAME, WEIGHTS_NAME)}
        return _Sent(digest, (ray.put(content),), read_adapter_dir)
    with tempfile.TemporaryDirectory(prefix="adapterbot-sent-") as folder:
        copy = files.export(Path(folder) / "copy")
        content = {
            file.relative_to(copy).as_posix(): file.read_bytes()
            for file in copy.rglob("*")
            if file.is_file()
        }
    return _Sent(digest, (ray.put(content),), files.reader)
