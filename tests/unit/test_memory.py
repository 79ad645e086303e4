"""Memory that ends is one error, whoever noticed it; torch has one for its own allocator only."""

from __future__ import annotations

import pytest
import torch

from adapterbot.errors import OurFailure
from adapterbot.eval.batches import Batcher
from adapterbot.weights.memory import fitting

ENDED = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 112.00 MiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously"),
]
OTHER = [
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"),
    torch.AcceleratorError("CUDA error: device-side assert triggered"),
    ValueError("CUDA error: out of memory"),
]


@pytest.mark.parametrize("error", ENDED)
def test_a_batch_that_any_library_finds_no_room_for_is_halved(error: Exception) -> None:
    """cuBLAS's handle, made at the first product, was a bug of ours and ended the gate."""
    sizes: list[int] = []

    def compute(batch: list[int]) -> list[int]:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise error
        return batch

    batcher = Batcher(1000, "cpu")
    assert len(dict(batcher.run(dict.fromkeys(range(8), 10), lambda length: length, compute))) == 8
    assert sizes == [8, 4, 2, 2, 2, 2]
    with pytest.raises(OurFailure, match="too little"), fitting("too little", fix="more"):
        raise error


@pytest.mark.parametrize("error", OTHER)
def test_any_other_error_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, fitting("too little", fix="more"):
        raise error
    assert caught.value is error


def test_a_cpu_whose_memory_ends_says_the_same() -> None:
    with pytest.raises(OurFailure, match="too little"), fitting("too little", fix="more"):
        torch.empty(2**47, dtype=torch.uint8)  # all that a process can address
