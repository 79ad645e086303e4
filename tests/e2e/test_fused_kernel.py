"""The fused kernel: its results by Triton's interpreter, and on a GPU where there is one; and that
Triton's compiler and NVIDIA's assembler take it for every tile."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.programs import python

triton = pytest.importorskip("triton")

# Kilobytes of shared memory that one program may take, and what multiplies there.
DEVICES = {80: (163, "mma.sync"), 90: (227, "wgmma")}


def check(**environment: str) -> None:
    checks = Path(__file__).with_name("fused_kernel_checks.py")
    done = python("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", checks, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_by_the_interpreter() -> None:
    check(TRITON_INTERPRET="1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_kernel_is_right_on_a_gpu() -> None:
    check()


@pytest.mark.parametrize("capability", DEVICES)
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_the_kernel_compiles_for_every_device(capability: int, dtype: str) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from adapterbot.weights import fused_kernel

    room, instruction = DEVICES[capability]
    product = {"fp16": triton.language.float16, "bf16": triton.language.bfloat16}[dtype]
    names = fused_kernel.kernel.arg_names
    for tiles in fused_kernel.TILES:
        fixed = {
            "HAS_OUTER": True,
            "PRODUCT": product,
            "TOKENS": tiles.tokens,
            "OUTPUTS": tiles.outputs,
            "RANKS": tiles.ranks,
        }
        pointers = ("y", "u", "b", "g", "outer", "made")
        signature = {
            name: "constexpr" if name in fixed else f"*{dtype}" if name in pointers else "i32"
            for name in names
        }
        # What Triton finds out for itself when tensors are allocated by torch and widths are even.
        aligned = {
            (place,): [["tt.divisibility", 16]]
            for place, name in enumerate(names)
            if name not in fixed and name != "tokens" and not name.endswith("span")
        }
        compiled = triton.compile(
            ASTSource(fused_kernel.kernel, signature, fixed, aligned),
            target=GPUTarget("cuda", capability, 32),
            options={"num_warps": tiles.warps, "num_stages": tiles.stages},
        )
        assert compiled.metadata.shared <= room * 1024
        # Less than 64 rows are too few for Hopper's own instruction.
        assert (instruction if tiles.tokens >= 64 else "mma.sync") in compiled.asm["ptx"]
