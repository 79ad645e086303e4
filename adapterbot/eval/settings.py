"""How the engine computes: what a user may choose, and what a cached result depends on.

Torch-free, so that a configuration is checked before anything heavy is loaded.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from adapterbot.records import Record


class EngineSettings(Record):
    """How answers are computed. Everything here is part of the key of a cached result.

    Attributes:
        device: "auto" takes CUDA when there is one.
        dtype: "auto" is bfloat16 on CUDA, float32 on a CPU.
        token_budget: how many tokens (rows × padded length) a batch may hold; None chooses by
            device. Halved when memory runs out.
        attn_implementation: as transformers names it; None leaves the choice to transformers.
        deterministic: refuse kernels whose results differ from run to run.
    """

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    dtype: Annotated[str, Field(pattern=r"^(auto|float32|bfloat16|float16)$")] = "auto"
    token_budget: Annotated[int, Field(ge=1)] | None = None
    attn_implementation: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")] | None = None
    deterministic: bool = True
