"""The fused kernel where there is no GPU: its results by Triton's interpreter, and that Triton's
compiler and NVIDIA's assembler take it for every tile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")

CHECKS = Path(__file__).with_name("interpreted_kernel.py")
# Kilobytes of shared memory that one program may take, and what multiplies there.
DEVICES = {80: (163, "mma.sync"), 90: (227, "wgmma")}


def test_by_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(CHECKS)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("capability", DEVICES)
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_by_the_compiler(capability: int, dtype: str) -> None:
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
