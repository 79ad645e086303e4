"""Where a search expects the break beforehand: anywhere, or where much changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import pairwise
from pathlib import Path

from adapterbot.bisect import Checkpoint, by_change
from adapterbot.errors import InputError, OurFailure
from adapterbot.lock.rows import dataset_diff
from adapterbot.probing.names import Prior
from adapterbot.probing.training_run import TrainingRun
from adapterbot.weights.peft_dir import read_adapter_dir

Opened = Callable[[Checkpoint], AbstractContextManager[Path]]


def prior(by: Prior, run: TrainingRun, opened: Opened | None = None) -> tuple[float, ...] | None:
    """Weights of the n + 1 change points, for `bisect.Setting`; None where none is preferred.

    By weights, every checkpoint is fetched and read; by data, the rows of each.

    Args:
        opened: puts a checkpoint on disk, where that is not what the run's archive does.

    Raises:
        InputError: a checkpoint is no adapter, or nothing says which rows it was trained on.
        OurFailure: a store does not answer, or torch is not installed here.
    """
    if by is Prior.UNIFORM:
        return None
    sizes = _rows(run) if by is Prior.DATA else _moves(run, opened or run.archive.opened)
    # The last digits of ‖ΔW‖ depend on the machine, and a search is resumed by its prior.
    return tuple(float(f"{weight:.6g}") for weight in by_change(list(sizes)))


def _moves(run: TrainingRun, opened: Opened) -> Iterator[float]:
    """‖ΔW‖_F of what each checkpoint adds to the one before."""
    try:
        from adapterbot.weights.adapter import open_adapter
        from adapterbot.weights.inspection import layer_changes
    except ImportError as error:
        raise OurFailure(
            "torch is not installed here", field="--prior weights", fix="install adapterbot[eval]"
        ) from error
    for neighbours in pairwise(run.checkpoints):
        with ExitStack() as stack:
            before, after = (
                open_adapter(read_adapter_dir(stack.enter_context(opened(one)), shown=one.path))
                for one in neighbours
            )
            yield math.hypot(*(change.distance for change in layer_changes(before, after)))


def _rows(run: TrainingRun) -> Iterator[float]:
    """How many rows came, went or changed before each checkpoint."""
    for before, after in pairwise(run.checkpoints):
        sides = run.rows_between(before, after)
        if sides is None:
            raise InputError(
                "needs to know which rows each checkpoint was trained on",
                field="--prior data",
                fix="name them as `archive_data` in adapterbot.yaml",
            )
        found = dataset_diff(*sides)
        yield found.added + found.removed + found.changed
