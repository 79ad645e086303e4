"""More than one GPU or machine: the same engine, its batches computed by Ray actors. (torch, ray)

What is put into a batch is decided here exactly as in one process, and every actor computes a
batch exactly as one process would: so the digits are the same, however many actors there are and
whichever of them dies. What differs from run to run is only who computed what.

The base must be reachable under the same name wherever an actor runs; adapters travel with Ray.
"""

from __future__ import annotations

import queue
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import ray
import torch
from ray.exceptions import RayActorError, RayTaskError

from adapterbot.errors import InputError, OurFailure
from adapterbot.eval.answers import Answer
from adapterbot.eval.base_model import load_base
from adapterbot.eval.batches import Batcher, no_family, ordered
from adapterbot.eval.engine import LocalModel
from adapterbot.eval.generation import GenerationRequest
from adapterbot.eval.loglikelihood import LikelihoodRequest
from adapterbot.eval.passes import Limits
from adapterbot.eval.prompts import Prompts
from adapterbot.eval.questions import Identity, Ids, Question, Unanswered
from adapterbot.eval.respondent import Respondent
from adapterbot.eval.settings import EngineSettings
from adapterbot.weights.peft_dir import CONFIG_NAME, WEIGHTS_NAME, AdapterFiles, read_adapter_dir
from adapterbot.weights.via_peft import peft_version

_Request = TypeVar("_Request")
_Result = TypeVar("_Result")

# So many actors may be lost for each that we began with: a batch that kills whoever computes it
# must not be handed on for ever.
_LOSSES = 3
_COMES_UP_SECONDS = 900.0


@dataclass(frozen=True)
class _Adapter:
    """An adapter on its way: its digest, and its files as an object that Ray keeps."""

    digest: str
    files: tuple[Any]  # a reference: inside a tuple, so that an actor fetches it only when new


@dataclass(frozen=True)
class _Loaded:
    """What an actor says of the base that it has loaded."""

    tokenizer: Any
    limits: Limits
    device: str
    dtype: str
    identity: Identity


class _Worker:
    """One process with the base loaded: an actor."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._digest = ""
        self._folder = tempfile.TemporaryDirectory(prefix="adapterbot-worker-")

    def load(self, base: str, settings: EngineSettings, threads: int) -> _Loaded:
        """Loads the base. Not when it is made: an error there would be an actor's death to Ray."""
        torch.set_num_threads(threads)
        self._model = LocalModel(load_base(base, settings), settings)
        return _Loaded(
            tokenizer=self._model.base.tokenizer,
            limits=self._model.passes.limits,
            device=self._model.device,
            dtype=self._model.dtype,
            identity=self._model.identity(None),
        )

    def compute(self, what: str, adapter: _Adapter | None, batch: Sequence[Any]) -> Any:
        self._put_under(adapter)
        with torch.inference_mode():
            return getattr(self._model.passes, what)(batch)

    def _put_under(self, adapter: _Adapter | None) -> None:
        digest = adapter.digest if adapter else ""
        if digest == self._digest:
            return
        self._stack.close()
        self._digest = ""
        self._model.passes.forget()
        if adapter:
            self._stack.enter_context(self._model.under(self._files(adapter), digest))
        self._digest = digest

    def _files(self, adapter: _Adapter) -> AdapterFiles:
        folder = Path(self._folder.name) / adapter.digest
        if not folder.exists():
            folder.mkdir()
            for name, content in ray.get(adapter.files[0]).items():
                (folder / name).write_bytes(content)
        return read_adapter_dir(folder)


class _Pool:
    """Actors that compute batches; one that dies is replaced, and its batch computed again.

    Attributes:
        actors: all that are alive or coming up.
    """

    def __init__(self, make: Callable[[], tuple[Any, Any]], count: int) -> None:
        """
        Args:
            make: makes an actor and asks it to load the base: the actor, and what it will say.
        """
        self._make = make
        self._ready: queue.Queue[Any] = queue.Queue()
        self._losses_left = _LOSSES * count
        self._loaded: _Loaded | None = None
        self._changing = threading.Lock()
        self.actors: list[Any] = []
        for _ in range(count):
            self._bring_up()

    def first(self) -> _Loaded:
        """What was loaded, as soon as one actor has loaded it."""
        actor = self._next()
        self._ready.put(actor)
        assert self._loaded is not None  # noqa: S101 - an actor is ready only after it said so
        return self._loaded

    def compute(self, what: str, adapter: _Adapter | None, batch: Sequence[Any]) -> Any:
        """One batch by whichever actor is free.

        Raises:
            OurFailure: too many actors were lost.
        """
        while True:
            actor = self._next()
            try:
                result = ray.get(actor.compute.remote(what, adapter, batch))
            except RayActorError:
                self._lose(actor)
            except RayTaskError as error:
                self._ready.put(actor)
                raise error.cause from error
            else:
                self._ready.put(actor)
                return result

    def close(self) -> None:
        """Ends every actor."""
        with self._changing:
            self._losses_left = -1
            for actor in self.actors:
                ray.kill(actor)
            self.actors.clear()

    def _next(self) -> Any:
        try:
            found = self._ready.get(timeout=_COMES_UP_SECONDS)
        except queue.Empty:
            raise OurFailure(
                "no worker of the cluster became free in 15 minutes",
                fix="see `ray status`: are the GPUs taken?",
            ) from None
        if isinstance(found, BaseException):
            self._ready.put(found)  # for the others who wait
            raise found
        return found

    def _bring_up(self) -> None:
        actor, loading = self._make()
        self.actors.append(actor)
        threading.Thread(target=self._await, args=(actor, loading), daemon=True).start()

    def _await(self, actor: Any, loading: Any) -> None:
        """Offers an actor once it has loaded the base: it may never, where its node is gone."""
        try:
            loaded = ray.get(loading)
        except RayActorError:
            self._lose(actor)
            return
        except RayTaskError as error:
            self._ready.put(error.cause)
            return
        with self._changing:
            known, self._loaded = self._loaded or loaded, self._loaded or loaded
        if loaded.identity != known.identity:
            self._ready.put(
                InputError(
                    "is not the same on every machine of the cluster",
                    field="base",
                    fix="put the same files and packages on all of them",
                )
            )
            return
        self._ready.put(actor)

    def _lose(self, actor: Any) -> None:
        with self._changing:
            if actor in self.actors:
                self.actors.remove(actor)
            self._losses_left -= 1
            if self._losses_left >= 0:
                self._bring_up()
                return
        self._ready.put(OurFailure("too many workers of the cluster died", fix="see Ray's logs"))


class _RemotePasses:
    """Batches computed by a pool, under the adapter that is current."""

    def __init__(self, pool: _Pool, limits: Limits) -> None:
        self._pool = pool
        self.limits = limits
        self.adapter: _Adapter | None = None

    def answer(self, requests: Sequence[GenerationRequest]) -> list[Ids]:
        found: list[Ids] = self._pool.compute("answer", self.adapter, requests)
        return found

    def check(self, requests: Sequence[GenerationRequest]) -> list[tuple[Ids, bool]]:
        found: list[tuple[Ids, bool]] = self._pool.compute("check", self.adapter, requests)
        return found

    def loglikelihoods(self, requests: Sequence[LikelihoodRequest]) -> list[tuple[float, ...]]:
        found: list[tuple[float, ...]] = self._pool.compute(
            "loglikelihoods", self.adapter, requests
        )
        return found

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
    ) -> Iterator[tuple[int, _Result]]:
        requests = dict(requests)
        waiting = ordered(requests, length, family)
        running: deque[tuple[list[int], Future[Sequence[_Result]]]] = deque()
        with ThreadPoolExecutor(self._lanes) as threads:
            while waiting or running:
                while waiting and len(running) < 2 * self._lanes:
                    batch = self.head(waiting, requests, length)
                    waiting = waiting[len(batch) :]
                    work = threads.submit(self._whole, [requests[key] for key in batch], compute)
                    running.append((batch, work))
                keys, first = running.popleft()
                try:
                    results = first.result()
                except BaseException:
                    threads.shutdown(wait=False, cancel_futures=True)
                    raise
                yield from zip(keys, results, strict=True)

    def _whole(
        self, batch: Sequence[_Request], compute: Callable[[Sequence[_Request]], Sequence[_Result]]
    ) -> Sequence[_Result]:
        """A batch, or its halves where a worker has too little memory for all of it."""
        results = self._attempt(batch, compute)
        if results is not None:
            return results
        self.budget = max(1, self.budget // 2)
        middle = len(batch) // 2
        return [*self._whole(batch[:middle], compute), *self._whole(batch[middle:], compute)]


class ClusterModel:
    """A base model on every GPU of a Ray cluster, or on its processors where it has none."""

    def __init__(self, base: Path | str, settings: EngineSettings, address: str) -> None:
        """Starts an actor for each GPU, or as many as the processors allow.

        A CPU actor computes with as many threads as this process would (`OMP_NUM_THREADS`): other
        numbers of threads may give other last digits.

        Args:
            base: a directory that every machine sees under this path, or a name on the Hub.
            address: of a running cluster; `local` starts one on this machine.

        Raises:
            InputError: there is no cluster at the address, or the base cannot be loaded.
        """
        self.name = str(base)
        self._ours = not ray.is_initialized()
        if self._ours:
            join(address)
        worker, count, threads = crew(_Worker, settings)

        def make() -> tuple[Any, Any]:
            actor = worker.remote()
            return actor, actor.load.remote(self.name, settings, threads)

        self.pool = _Pool(make, count)
        try:
            self._loaded = self.pool.first()
        except BaseException:
            self.close()
            raise
        self._passes = _RemotePasses(self.pool, self._loaded.limits)
        self._respondent = Respondent(
            Prompts(self._loaded.tokenizer, self.name),
            self._passes,
            _ManyBatcher(settings.token_budget, self._loaded.limits.device, count),
        )
        self._count = count

    @property
    def device(self) -> str:
        return f"{self._count} × {self._loaded.device}"

    @property
    def dtype(self) -> str:
        return self._loaded.dtype

    def identity(self, files: AdapterFiles | None) -> Identity:
        """That of one process: the answers are the same, so they share a cache."""
        found = self._loaded.identity
        if files and files.left_to_peft:
            return replace(found, versions={**found.versions, "peft": peft_version()})
        return found

    @contextmanager
    def under(self, files: AdapterFiles | None, digest: str) -> Iterator[None]:
        """The adapter under every actor's base inside."""
        if files:
            content = {
                name: (files.path / name).read_bytes() for name in (CONFIG_NAME, WEIGHTS_NAME)
            }
            self._passes.adapter = _Adapter(digest, (ray.put(content),))
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

    def close(self) -> None:
        """Ends the actors, and the cluster if it was started here."""
        self.pool.close()
        if self._ours:
            ray.shutdown()


def join(address: str) -> None:
    """Connects this process to a cluster, or starts one for `local`.

    Raises:
        InputError: there is none at the address.
    """
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()
        raise InputError(
            f"there is no Ray cluster at {address!r}: {reason[0] if reason else 'no reason given'}",
            field="--ray",
            fix="name a running cluster, or `local` to start one on this machine",
        ) from error


def crew(worker: type, settings: EngineSettings) -> tuple[Any, int, int]:
    """What to make workers from, how many the cluster has room for, and the threads of each.

    One for each GPU; without any, one for as many processors as this process computes on.
    """
    threads = torch.get_num_threads()
    gpus = int(ray.cluster_resources().get("GPU", 0)) if settings.device != "cpu" else 0
    cpus = int(ray.cluster_resources().get("CPU", 1))
    share = {"num_gpus": 1} if gpus else {"num_cpus": min(threads, cpus)}
    kind = ray.remote(worker).options(max_restarts=0, **share)
    return kind, gpus or max(1, cpus // threads), threads
