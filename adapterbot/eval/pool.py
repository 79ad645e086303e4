"""Ray actors that work side by side: as many as there is room for, the dead replaced. (ray)"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayError, RayTaskError

from adapterbot import TOOL
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
                the `identity` of that is the same of all, and `tool` ours.
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
        threads = torch.get_num_threads()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        share, self.count = places(nodes, settings.device, threads)
        self._kind = ray.remote(worker).options(max_restarts=0, **share)
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

        Raises:
            InputError: an actor has loaded another base than the others, or is of another version.
            OurFailure: too many actors were lost.
        """
        while True:
            actor = self._next()
            try:
                result = ray.get(call(actor))
            except RayTaskError as error:
                self._ready.put(actor)
                raise error.cause from error
            except RayError as error:
                self._lose(actor, error)
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
        threading.Thread(target=self._offer, args=(actor, loading), daemon=True).start()

    def _offer(self, actor: Any, loading: Any) -> None:
        try:
            self._await(actor, loading)
        except Exception as error:  # noqa: BLE001 whoever waits for an actor would wait for ever
            self._ready.put(error)

    def _await(self, actor: Any, loading: Any) -> None:
        """Offers an actor once it has loaded the base: it may never, where its node is gone."""
        try:
            loaded = ray.get(loading, timeout=self._comes_up)
        except GetTimeoutError:
            self._leave_out(actor)
            return
        except RayTaskError as error:
            self._ready.put(error.cause)
            return
        except RayError as error:
            self._lose(actor, error)
            return
        if loaded.tool != TOOL:
            self._ready.put(
                InputError(
                    f"has {loaded.tool} on its workers, and this is {TOOL}",
                    field="--ray",
                    fix="install the same version on all nodes",
                )
            )
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
                fix="put the same files and packages on all of them, with CPUs of one kind",
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

    def _lose(self, actor: Any, error: RayError) -> None:
        # What Ray's own memory monitor says begins with the reason, all else ends with it.
        said = str(error).strip().splitlines() or [type(error).__name__]
        reason = said[0 if isinstance(error, OutOfMemoryError) else -1]
        with self._changing:
            if actor in self.actors:
                self.actors.remove(actor)
                ray.kill(actor)  # it may only be out of reach, and would keep its GPU
            self._losses_left -= 1
            if self._losses_left >= 0:
                _LOG.warning("a worker of the cluster is lost, and replaced: %s", reason)
                self._bring_up()
                return
        self._ready.put(
            OurFailure(f"too many workers of the cluster died: {reason}", fix="see Ray's logs")
        )


def places(
    nodes: Sequence[Mapping[str, float]], device: str, threads: int
) -> tuple[dict[str, int], int]:
    """What each worker takes of a node, and for how many there is room.

    One worker for each GPU; without any, one for as many processors as this process computes on,
    or as the largest node has. Where an autoscaler has taken every node away, one worker is asked
    for, with a GPU unless the device is cpu.

    Args:
        nodes: what each of them has, by Ray's names.
        device: the settings' own.
        threads: that this process computes with.
    """
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = 0 if device == "cpu" else sum(int(node.get("GPU", 0)) for node in nodes)
    if gpus or (device != "cpu" and not any(cpus)):
        return {"num_gpus": 1}, max(gpus, 1)
    share = min(threads, max(cpus, default=0)) or threads
    return {"num_cpus": share}, max(sum(each // share for each in cpus), 1)
