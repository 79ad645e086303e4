"""Where a search expects the break beforehand: anywhere, or where much changed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from adapterbot.bisect import by_change
from adapterbot.errors import InputError
from adapterbot.importing import extras
from adapterbot.lock.rows import dataset_diff
from adapterbot.probing.names import Prior
from adapterbot.probing.training_run import TrainingRun


def prior(by: Prior, run: TrainingRun) -> tuple[float, ...] | None:
    """Weights of the n + 1 change points, for `bisect.Setting`; None where none is preferred.

    By weights, every checkpoint is fetched and read; by data, the rows of each.

    Raises:
        InputError: a checkpoint is no adapter, or nothing says which rows it was trained on.
        OurFailure: a store does not answer, or torch is not installed.
    """
    if by is Prior.UNIFORM:
        return None
    sizes = _rows(run) if by is Prior.DATA else _moves(run)
    # The last digits of ‖ΔW‖ depend on the machine, and a search is resumed by its prior.
    return tuple(float(f"{weight:.6g}") for weight in by_change(list(sizes)))


def _moves(run: TrainingRun) -> Iterator[float]:
    """‖ΔW‖_F of what each checkpoint adds to the one before."""
    with extras("eval", "--prior weights"):
        from adapterbot.weights.adapter import open_adapter
        from adapterbot.weights.inspection import layer_changes
    for neighbours in pairwise(run.checkpoints):
        with run.adapters(*neighbours) as found:
            before, after = map(open_adapter, found)
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
