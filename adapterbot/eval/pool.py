"""Ray actors that compute batches: as many as there is room for, the dead replaced. (torch, ray)"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from adapterbot.errors import InputError, OurFailure
from adapterbot.eval.passes import Limits
from adapterbot.eval.questions import Identity, Subject
from adapterbot.eval.settings import EngineSettings

_LOG = logging.getLogger(__name__)

# So many actors may be lost for each that we began with: a batch that kills whoever computes it
# must not be handed on for ever.
LOSSES = 3
# In which an actor is to have found its place and loaded the base.
COMES_UP_SECONDS = 900.0


@dataclass(frozen=True)
class SentAdapter:
    """An adapter or a composite on its way: its digest, its files as an object that Ray keeps, and
    what reads them."""

    digest: str
    files: tuple[Any]  # a reference: inside a tuple, so that an actor fetches it only when new
    read: Callable[[Path], Subject]


@dataclass(frozen=True)
class Loaded:
    """What an actor says of the base that it has loaded."""

    tokenizer: Any
    limits: Limits
    device: str
    dtype: str
    identity: Identity


class Pool:
    """Actors that compute batches; one that dies is replaced, and its batch computed again.

    Work goes on without an actor that does not come up, as long as there are others.

    Attributes:
        actors: all that are alive or coming up.
    """

    def __init__(self, make: Callable[[], tuple[Any, Any]], count: int) -> None:
        """
        Args:
            make: makes an actor and asks it to load the base: the actor, and what it will say.
        """
        self._make = make
        self._comes_up = COMES_UP_SECONDS
        self._ready: queue.Queue[Any] = queue.Queue()
        self._losses_left = LOSSES * count
        self._loaded: Loaded | None = None
        self._changing = threading.Lock()
        self.actors: list[Any] = []
        for _ in range(count):
            self._bring_up()

    def first(self) -> Loaded:
        """What was loaded, as soon as one actor has loaded it."""
        actor = self._next()
        self._ready.put(actor)
        assert self._loaded is not None  # noqa: S101 - an actor is ready only after it said so
        return self._loaded

    def compute(self, what: str, adapter: SentAdapter | None, batch: Sequence[Any]) -> Any:
        """One batch by whichever actor is free.

        Raises:
            OurFailure: too many actors were lost.
        """
        return self._ask(lambda actor: actor.compute.remote(what, adapter, batch))

    def shares(self, composite: SentAdapter, answered: Sequence[Any]) -> Any:
        """How much of some answers each part wrote, by whichever actor is free.

        Raises:
            OurFailure: too many actors were lost.
        """
        return self._ask(lambda actor: actor.shares.remote(composite, answered))

    def _ask(self, call: Callable[[Any], Any]) -> Any:
        while True:
            actor = self._next()
            try:
                result = ray.get(call(actor))
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
        found = self._ready.get()
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
            loaded = ray.get(loading, timeout=self._comes_up)
        except GetTimeoutError:
            self._leave_out(actor)
            return
        except RayActorError:
            self._lose(actor)
            return
        except RayTaskError as error:
            self._ready.put(error.cause)
            return
        with self._changing:
            known, self._loaded = self._loaded or loaded, self._loaded or loaded
        if loaded.identity != known.identity:
            self._ready.put(another_base())
            return
        self._ready.put(actor)

    def _leave_out(self, actor: Any) -> None:
        """Where there is no place for an actor, or no answer from it."""
        with self._changing:
            if actor not in self.actors:  # the pool was closed
                return
            self.actors.remove(actor)
            left = len(self.actors)
        ray.kill(actor)
        try:
            go_on(self._comes_up, left)
        except OurFailure as error:
            self._ready.put(error)

    def _lose(self, actor: Any) -> None:
        with self._changing:
            if actor in self.actors:
                self.actors.remove(actor)
            self._losses_left -= 1
            if self._losses_left >= 0:
                self._bring_up()
                return
        self._ready.put(too_many_died())


def nobody_came(seconds: float) -> OurFailure:
    """No actor has come up in so many seconds."""
    return OurFailure(
        f"no worker of the cluster came up in {seconds:g} s",
        fix="see `ray status`: are the GPUs taken?",
    )


def another_base() -> InputError:
    """What a worker has loaded is not what the others have."""
    return InputError(
        "is not the same on every machine of the cluster",
        field="base",
        fix="put the same files and packages on all of them",
    )


def too_many_died() -> OurFailure:
    """More than `LOSSES` for each that we began with."""
    return OurFailure("too many workers of the cluster died", fix="see Ray's logs")


def go_on(seconds: float, left: int) -> None:
    """Says that an actor did not come up in so many seconds, and how many there still are.

    Raises:
        OurFailure: there are none.
    """
    if not left:
        raise nobody_came(seconds)
    _LOG.warning(
        "a worker of the cluster did not come up in %g s; %d of them go on (see `ray status`)",
        seconds,
        left,
    )


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
