"""A population spread over the machines of a Ray cluster: one model each, pieces handed out. (ray)

A piece is one candidate on some of the items. There are several for every worker, and a worker
that is done takes the next, so that none idles while another finishes a generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from adapterbot import TOOL
from adapterbot.commands.merge_scores import SuiteScores
from adapterbot.eval.base_model import load_alone
from adapterbot.eval.blends import BlendedModel
from adapterbot.eval.joining import seen_everywhere
from adapterbot.eval.pool import Pool
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


@dataclass(frozen=True)
class _Loaded:
    """What a worker has loaded, the base by its digest, and the version that loaded it."""

    identity: str
    tool: str


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
    ) -> _Loaded:
        """Loads everything."""
        torch.set_num_threads(threads)
        loaded = []
        for number, files in enumerate(adapters):
            place = Path(self._folder.name) / str(number)
            place.mkdir()
            for name, content in files.items():
                (place / name).write_bytes(content)
            loaded.append(load_adapter(place))
        model = BlendedModel(load_alone(base, settings), settings, loaded, groups)
        self._scores = SuiteScores(model, tasks)
        return _Loaded(model.base.digest, TOOL)

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
        pool: the workers.
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
        """Starts the workers.

        Args:
            address: of a running cluster; `local` starts one on this machine.

        Raises:
            InputError: there is no cluster at the address, or the base cannot be loaded.
            OurFailure: no worker came up.
        """
        content: Files = tuple(
            {name: (one.path / name).read_bytes() for name in (CONFIG_NAME, WEIGHTS_NAME)}
            for one in adapters
        )
        layers, asked = tuple(map(tuple, groups)), tuple(tasks)
        place = seen_everywhere(base)
        self.pool = Pool(_Worker, settings, address, place, settings, content, layers, asked)
        self.base_digest: str = self.pool.loaded.identity

    def scores(
        self, candidates: Sequence[Weights], items: Sequence[int]
    ) -> list[FloatArray | Failed]:
        """As `merge.race.Evaluator`."""
        table = np.full((len(candidates), len(items)), np.nan)
        failed: dict[int, str] = {}

        def score(piece: _Piece) -> None:
            if piece.candidate in failed:
                return
            weights = candidates[piece.candidate]
            found = self.pool.ask(lambda worker: worker.score.remote(weights, piece.items))
            if isinstance(found, str):
                failed[piece.candidate] = found
            else:
                table[piece.candidate, piece.start : piece.start + len(piece.items)] = found

        threads = ThreadPoolExecutor(self.pool.count)
        try:
            for _ in threads.map(score, self._pieces(len(candidates), items)):
                pass
        finally:
            # Whoever interrupts does not wait for what is under way.
            threads.shutdown(wait=False, cancel_futures=True)
        return [
            Failed(failed[index]) if index in failed else table[index]
            for index in range(len(candidates))
        ]

    def close(self) -> None:
        """Ends the workers, and the cluster if it was started here."""
        self.pool.close()

    def _pieces(self, candidates: int, items: Sequence[int]) -> list[_Piece]:
        wanted = _PIECES * self.pool.count
        parts = max(1, min(-(-wanted // candidates), len(items) // _LEAST_ITEMS))
        step = -(-len(items) // parts)
        return [
            _Piece(candidate, start, tuple(items[start : start + step]))
            for start in range(0, len(items), step)
            for candidate in range(candidates)
        ]
