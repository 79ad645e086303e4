"""How the engine computes: what a user may choose, and what a cached result depends on."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from adapterbot.records.base import Record


class EngineSettings(Record):
    """How answers are computed. Everything here is part of the key of a cached result.

    device: `auto` takes CUDA when there is one.
    dtype: `auto` is bfloat16 on CUDA, float32 on a CPU.
    token_budget: how many tokens (rows × padded length) a batch may hold; chosen by device when
        not given. Halved when memory runs out.
    attn_implementation: chosen by transformers when not given.
    quantization: load the base's linear layers in 8 or 4 bits, by bitsandbytes.
    device_map: spread the base over all GPUs, as accelerate names the ways; `device` is then auto.
    deterministic: refuse kernels whose results differ from run to run.
    """

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    token_budget: Annotated[int, Field(ge=1)] | None = None
    attn_implementation: (
        Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3"] | None
    ) = None
    quantization: Literal["8bit", "4bit"] | None = None
    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | None = None
    deterministic: bool = True

    @model_validator(mode="after")
    def _one_way_to_place_it(self) -> Self:
        if self.device_map and self.device != "auto":
            raise ValueError("give device or device_map, not both")
        return self
