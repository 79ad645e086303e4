"""A base's products on a CPU with AVX-512: by the faster of torch's two libraries. (torch)

torch multiplies matrices of fp32 by MKL, which uses AVX-512 on Intel's processors only. oneDNN,
which it multiplies bf16 by, uses it on every processor that has it: 240 GFLOP/s of one core of an
EPYC where MKL comes to 110. A call of it takes some 10 µs more. On a Xeon oneDNN takes up to 2.6
times as long as MKL, but for a few rows and a matrix that no near cache holds.
"""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

# From so many multiplications on, oneDNN is the faster where MKL lacks AVX-512: 8 rows and a matrix
# of 256 × 256.
_WORTH = 1 << 19

# On Intel's: of matrices of 4 MiB and more, MKL multiplies 12 rows in the time of 32.
_FAR, _FEW = 1 << 20, range(4, 16)

# A kernel is made for every shape, in 0.4 ms and half a MB. torch keeps as many as the one says,
# oneDNN as many as the other; both 1,024 by default, which comes to more than a GB.
_KEPT = {"LRU_CACHE_CAPACITY": "64", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}


class Linear(nn.Linear):
    """As torch's own, in half the time."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or not self._faster(x):
            return super().forward(x)
        # What torch's compiler writes for a linear layer.
        multiply = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
        product: Tensor = multiply(x, self.weight, self.bias, "none", [], "")
        return product

    def _faster(self, x: Tensor) -> bool:
        """Whether oneDNN is the faster for this input (…, in)."""
        return bool(x.numel() * self.out_features >= _WORTH)


class IntelLinear(Linear):
    """As torch's own, in half the time for a few rows; made where its matrix is large."""

    def _faster(self, x: Tensor) -> bool:
        return x.numel() // self.in_features in _FEW


def multiply_by_onednn(model: nn.Module, *, intel: bool) -> None:
    """Makes linear layers of fp32 a `Linear`, the very same objects, where that is faster. Does
    nothing on another device, or on a CPU without AVX-512.

    Args:
        intel: whether the CPU is one of Intel's.
    """
    mkldnn = torch.backends.mkldnn.is_available()
    if not mkldnn or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return
    for name, count in _KEPT.items():
        os.environ.setdefault(name, count)
    for module in model.modules():
        if type(module) is not nn.Linear or (intel and module.weight.numel() < _FAR):
            continue
        if module.weight.dtype == torch.float32 and module.weight.device.type == "cpu":
            module.__class__ = IntelLinear if intel else Linear


@cache
def of_intel(cpu: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this machine's processor is one of Intel's, by which MKL chooses its kernels, too.

    Args:
        cpu: where Linux names it; other systems have no such file.
    """
    named = cpu.read_text("utf-8", errors="replace") if cpu.exists() else platform.processor()
    return "GenuineIntel" in named
