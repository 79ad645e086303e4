"""A population spread over the machines of a Ray cluster: one model each, pieces handed out. (ray)

A piece is one candidate on some of the items. There are several for every worker, and a worker
that is done takes the next, so that none idles while another finishes a generation. A worker that
dies is replaced and its piece asked again; the others do not wait for one that does not come up.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from adapterbot.commands.merge_scores import SuiteScores
from adapterbot.errors import OurFailure
from adapterbot.eval.base_model import load_base
from adapterbot.eval.blends import BlendedModel
from adapterbot.eval.pool import (
    COMES_UP_SECONDS,
    LOSSES,
    another_base,
    crew,
    go_on,
    join,
    nobody_came,
    too_many_died,
)
from adapterbot.eval.settings import EngineSettings
from adapterbot.eval.suite import Task
from adapterbot.merge.race import Failed
from adapterbot.merge.space import FloatArray, Weights
from adapterbot.weights.adapter import load_adapter
from adapterbot.weights.peft_dir import CONFIG_NAME, WEIGHTS_NAME, AdapterFiles

# So many pieces for each worker: what is lost at the end is a part of the last one.
_PIECES = 4
_LEAST_ITEMS = 8

Files = tuple[dict[str, bytes], ...]


class _Worker:
    """One process with the base and all adapters: an actor."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="adapterbot-merge-")

    def load(
        self,
        base: str,
        settings: EngineSettings,
        adapters: Files,
        groups: Sequence[Sequence[int]],
        tasks: Sequence[Task],
        threads: int,
    ) -> str:
        """Loads everything; returns the base's digest."""
        torch.set_num_threads(threads)
        loaded = []
        for number, files in enumerate(adapters):
            place = Path(self._folder.name) / str(number)
            place.mkdir()
            for name, content in files.items():
                (place / name).write_bytes(content)
            loaded.append(load_adapter(place))
        model = BlendedModel(load_base(base, settings), settings, loaded, groups)
        self._scores = SuiteScores(model, tasks)
        return model.base.digest

    def process(self) -> int:
        """The process that it runs in."""
        return os.getpid()

    def score(self, weights: Weights, items: Sequence[int]) -> FloatArray | str:
        """Scores, or why there are none."""
        (found,) = self._scores.scores([weights], items)
        return found.reason if isinstance(found, Failed) else found


@dataclass(frozen=True)
class _Piece:
    """One candidate on the items from `start` on."""

    candidate: int
    start: int
    items: tuple[int, ...]


class ClusterScores:
    """As `SuiteScores`, computed by every GPU of a cluster, or by its processors.

    Attributes:
        base_digest: of the base's files, the same on every machine.
        workers: the actors.
    """

    def __init__(
        self,
        base: str,
        settings: EngineSettings,
        adapters: Sequence[AdapterFiles],
        groups: Sequence[Sequence[int]],
        tasks: Sequence[Task],
        address: str,
    ) -> None:
        """Starts a worker for each GPU, or as many as the processors allow.

        Args:
            address: of a running cluster; `local` starts one on this machine.

        Raises:
            InputError: there is no cluster at the address, or the base cannot be loaded.
        """
        self._ours = not ray.is_initialized()
        if self._ours:
            join(address)
        self._kind, count, threads = crew(_Worker, settings)
        content = tuple(
            {name: (one.path / name).read_bytes() for name in (CONFIG_NAME, WEIGHTS_NAME)}
            for one in adapters
        )
        self._arguments = (
            base, settings, ray.put(content), tuple(map(tuple, groups)), ray.put(tuple(tasks)),
            threads,
        )  # fmt: skip
        self._losses_left = LOSSES * count
        self._comes_up = COMES_UP_SECONDS
        self.workers: list[Any] = []
        # What workers that are coming up will say, and until when they have to.
        self._loading: dict[Any, tuple[Any, float]] = {}
        try:
            for _ in range(count):
                self._bring_up()
            digests = set(ray.get(list(self._loading), timeout=self._comes_up))
        except GetTimeoutError:
            self.close()
            raise nobody_came(self._comes_up) from None
        except RayTaskError as error:
            self.close()
            raise error.cause from error
        except RayActorError as error:
            self.close()
            raise OurFailure("the workers of the cluster died", fix="see Ray's logs") from error
        self._loading.clear()
        self.base_digest = min(digests)
        if len(digests) > 1:
            self.close()
            raise another_base()

    def scores(
        self, candidates: Sequence[Weights], items: Sequence[int]
    ) -> list[FloatArray | Failed]:
        """As `merge.race.Evaluator`."""
        waiting = deque(self._pieces(len(candidates), items))
        table = np.full((len(candidates), len(items)), np.nan)
        failed: dict[int, str] = {}
        running: dict[Any, tuple[Any, _Piece]] = {}
        coming = [worker for worker, _ in self._loading.values()]
        free = deque(worker for worker in self.workers if worker not in coming)
        while waiting or running:
            while waiting and free:
                piece = waiting.popleft()
                if piece.candidate in failed:
                    continue
                worker = free.popleft()
                answer = worker.score.remote(candidates[piece.candidate], piece.items)
                running[answer] = worker, piece
            if not running and not waiting:
                continue
            done = self._first_of(running)
            if done is None:
                continue
            if done in self._loading:
                free.extend(self._up(done))
                continue
            worker, piece = running.pop(done)
            try:
                found = ray.get(done)
            except RayActorError:
                self._replace(worker)
                waiting.appendleft(piece)
                continue
            except RayTaskError as error:
                found = str(error.cause)
            free.append(worker)
            if isinstance(found, str):
                failed[piece.candidate] = found
            else:
                table[piece.candidate, piece.start : piece.start + len(piece.items)] = found
        return [
            Failed(failed[index]) if index in failed else table[index]
            for index in range(len(candidates))
        ]

    def close(self) -> None:
        """Ends the workers, and the cluster if it was started here."""
        for worker in self.workers:
            ray.kill(worker)
        self.workers.clear()
        if self._ours:
            ray.shutdown()

    def _pieces(self, candidates: int, items: Sequence[int]) -> list[_Piece]:
        wanted = _PIECES * len(self.workers)
        parts = max(1, min(-(-wanted // candidates), len(items) // _LEAST_ITEMS))
        step = -(-len(items) // parts)
        return [
            _Piece(candidate, start, tuple(items[start : start + step]))
            for start in range(0, len(items), step)
            for candidate in range(candidates)
        ]

    def _bring_up(self) -> None:
        worker = self._kind.remote()
        self.workers.append(worker)
        loading = worker.load.remote(*self._arguments)
        self._loading[loading] = worker, time.monotonic() + self._comes_up

    def _first_of(self, running: Iterable[Any]) -> Any | None:
        """The first answer, of work or of a worker that has come up, if there is one in time.

        Raises:
            OurFailure: nobody is left to wait for.
        """
        until = min((until for _, until in self._loading.values()), default=None)
        left = None if until is None else max(0.0, until - time.monotonic())
        done, _ = ray.wait([*running, *self._loading], num_returns=1, timeout=left)
        if done:
            return done[0]
        for loading, (worker, until) in list(self._loading.items()):
            if until <= time.monotonic():
                del self._loading[loading]
                self.workers.remove(worker)
                ray.kill(worker)
                go_on(self._comes_up, len(self.workers))
        return None

    def _up(self, loading: Any) -> list[Any]:
        """The worker that has loaded the base, unless it died meanwhile and is replaced in turn."""
        worker, _ = self._loading.pop(loading)
        try:
            digest = ray.get(loading)
        except RayActorError:
            self._replace(worker)
            return []
        except RayTaskError as error:
            raise error.cause from error
        if digest != self.base_digest:
            raise another_base()
        return [worker]

    def _replace(self, lost: Any) -> None:
        """Another worker in the place of one that died."""
        self.workers.remove(lost)
        self._losses_left -= 1
        if self._losses_left < 0:
            raise too_many_died()
        self._bring_up()
