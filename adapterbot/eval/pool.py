"""Ray actors that work side by side: as many as there is room for, the dead replaced. (ray)"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from adapterbot.errors import InputError, OurFailure
from adapterbot.eval.joining import join
from adapterbot.eval.settings import EngineSettings

_LOG = logging.getLogger(__name__)

# So many actors may be lost for each that we began with: a batch that kills whoever computes it
# must not be handed on for ever.
LOSSES = 3
# In which an actor is to have found its place and loaded the base.
COMES_UP_SECONDS = 900.0


class Pool:
    """Actors of one class; one that dies is replaced, and what it was asked is asked again.

    Work goes on without an actor that does not come up, as long as there are others.

    Attributes:
        actors: all that are alive or coming up.
        count: how many we began with.
        loaded: what the first of them said of what it has loaded.
    """

    def __init__(
        self, worker: type, settings: EngineSettings, address: str, *arguments: Any
    ) -> None:
        """Starts an actor for each GPU, or as many as the processors allow.

        A CPU actor computes with as many threads as this process would (`OMP_NUM_THREADS`): other
        numbers of threads may give other last digits.

        Args:
            worker: the actors' class. Its `load(*arguments, threads)` says what it has loaded;
                the `identity` of that is the same of all.
            address: of a running cluster; `local` starts one on this machine.

        Raises:
            InputError: there is no cluster at the address, the settings name one of its GPUs, or
                what `load` raises.
            OurFailure: no actor came up.
        """
        if ":" in settings.device:  # a worker sees its own GPU alone, as the first
            raise InputError(
                f"is {settings.device}, and a cluster computes on all of its GPUs",
                field="engine.device",
                fix="write cuda or auto, or leave --ray away",
            )
        self._ours = not ray.is_initialized()
        if self._ours:
            join(address)
        self._kind, self.count, threads = _crew(worker, settings)
        self._arguments = [ray.put(one) for one in (*arguments, threads)]
        self._comes_up = COMES_UP_SECONDS
        self._ready: queue.Queue[Any] = queue.Queue()
        self._losses_left = LOSSES * self.count
        self._changing = threading.Lock()
        self.loaded: Any = None
        self.actors: list[Any] = []
        try:
            for _ in range(self.count):
                self._bring_up()
            self._ready.put(self._next())
        except BaseException:
            self.close()
            raise

    def ask(self, call: Callable[[Any], Any]) -> Any:
        """What whichever actor is free answers. From any thread.

        Args:
            call: asks an actor.

        Raises:
            InputError: an actor has loaded another base than the others.
            OurFailure: too many actors were lost.
        """
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
        """Ends every actor, and the cluster if it was started here."""
        with self._changing:
            self._losses_left = -1
            for actor in self.actors:
                ray.kill(actor)
            self.actors.clear()
        if self._ours:
            ray.shutdown()

    def _next(self) -> Any:
        found = self._ready.get()
        if isinstance(found, BaseException):
            self._ready.put(found)  # for the others who wait
            raise found
        return found

    def _bring_up(self) -> None:
        actor = self._kind.remote()
        self.actors.append(actor)
        # Not while it is made: an error there would be the actor's death to Ray.
        loading = actor.load.remote(*self._arguments)
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
            self.loaded = self.loaded or loaded
        if loaded.identity == self.loaded.identity:
            self._ready.put(actor)
            return
        self._ready.put(
            InputError(
                "is not the same on every machine of the cluster",
                field="base",
                fix="put the same files and packages on all of them",
            )
        )

    def _leave_out(self, actor: Any) -> None:
        """Where there is no place for an actor, or no answer from it."""
        with self._changing:
            if actor not in self.actors:  # the pool was closed
                return
            self.actors.remove(actor)
            left = len(self.actors)
        ray.kill(actor)
        if left:
            _LOG.warning(
                "a worker of the cluster did not come up in %g s; %d of them go on"
                " (see `ray status`)",
                self._comes_up,
                left,
            )
            return
        self._ready.put(
            OurFailure(
                f"no worker of the cluster came up in {self._comes_up:g} s",
                fix="see `ray status`: are the GPUs taken?",
            )
        )

    def _lose(self, actor: Any) -> None:
        with self._changing:
            if actor in self.actors:
                self.actors.remove(actor)
            self._losses_left -= 1
            if self._losses_left >= 0:
                self._bring_up()
                return
        self._ready.put(OurFailure("too many workers of the cluster died", fix="see Ray's logs"))


def _crew(worker: type, settings: EngineSettings) -> tuple[Any, int, int]:
    """What to make workers from, how many the cluster has room for, and the threads of each.

    One for each GPU; without any, one for as many processors as this process computes on.
    """
    threads = torch.get_num_threads()
    gpus = int(ray.cluster_resources().get("GPU", 0)) if settings.device != "cpu" else 0
    cpus = int(ray.cluster_resources().get("CPU", 1))
    share = {"num_gpus": 1} if gpus else {"num_cpus": min(threads, cpus)}
    kind = ray.remote(worker).options(max_restarts=0, **share)
    return kind, gpus or max(1, cpus // threads), threads
