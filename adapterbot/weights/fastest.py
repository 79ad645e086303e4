"""Which of several ways to compute the same is fastest here, measured once per shape. (torch)"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch

Way = TypeVar("Way", bound=Hashable)

_found: dict[Hashable, Hashable] = {}
# Milliseconds; a figure is a median over as many calls as fit, each with the cache emptied before,
# as another layer's weights would.
_WARM, _MEASURED = 2, 10


def milliseconds(call: Callable[[], object], device: torch.device) -> float:
    """The device's time for one call, by CUDA events; infinity if the device is too small, or if
    Triton, which comes with torch on Linux, is not there to measure."""
    try:
        from triton.runtime.errors import OutOfResources
        from triton.testing import do_bench
    except ImportError:
        return math.inf
    try:
        with torch.cuda.device(device):
            return float(do_bench(call, _WARM, _MEASURED, return_mode="median"))
    except OutOfResources:
        return math.inf


def fastest(
    shape: Hashable,
    ways: Callable[[], Mapping[Way, Callable[[], object]]],
    *,
    default: Way,
    device: torch.device,
    clock: Callable[[Callable[[], object], torch.device], float] = milliseconds,
) -> Way:
    """The way that took the device the least time when this shape was first met in this process.

    Args:
        shape: what the times depend on.
        ways: each way as a call; made only when it is measured.
        default: the way where nothing is, or can be, measured: away from CUDA; in torch's
            deterministic mode, where the same run must take the same way again; and while a CUDA
            graph is captured whose shapes were not met before.
    """
    if device.type != "cuda" or torch.are_deterministic_algorithms_enabled():
        return default
    key = (shape, device)
    if key not in _found:
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            return default
        times = {way: clock(call, device) for way, call in ways().items()}
        best = min(times, key=times.__getitem__)
        _found[key] = best if math.isfinite(times[best]) else default
    return _found[key]  # type: ignore[return-value]


def bucket(tokens: int) -> int:
    """Tokens in octaves: shapes of one bucket share what was measured."""
    return tokens.bit_length()
