"""A base's products on a CPU with AVX-512: torch's other library for them. (torch)

torch multiplies matrices of fp32 by MKL, which uses AVX-512 on Intel's processors only. oneDNN,
which it multiplies bf16 by, uses it on every processor that has it: 240 GFLOP/s of one core of an
EPYC where MKL comes to 110. A call of it takes some 10 µs more.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

# From so many multiplications on, oneDNN is the faster: 8 rows and a matrix of 256 × 256.
_WORTH = 1 << 19

# A kernel is made for every shape, in 0.4 ms and half a MB. torch keeps as many as the one says,
# oneDNN as many as the other; both 1,024 by default, which comes to more than a GB.
_KEPT = {"LRU_CACHE_CAPACITY": "64", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}


class Linear(nn.Linear):
    """As torch's own, in half the time."""

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() * self.out_features < _WORTH or torch.is_grad_enabled():
            return super().forward(x)
        # What torch's compiler writes for a linear layer.
        multiply = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
        product: Tensor = multiply(x, self.weight, self.bias, "none", [], "")
        return product


def multiply_by_onednn(model: nn.Module) -> None:
    """Makes every linear layer of fp32 a `Linear`, the very same object. Does nothing where that is
    no faster: on another device, or on a CPU without AVX-512."""
    mkldnn = torch.backends.mkldnn.is_available()
    if not mkldnn or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return
    for name, count in _KEPT.items():
        os.environ.setdefault(name, count)
    for module in model.modules():
        if type(module) is not nn.Linear:
            continue
        if module.weight.dtype == torch.float32 and module.weight.device.type == "cpu":
            module.__class__ = Linear
