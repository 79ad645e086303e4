"""mole_config.json: what a mixture of LoRAs is made of. Text comes in, frozen models come out.

No torch, and no files: whoever reads a mixture's directory or its tree starts here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from adapterbot.files.validation import bad_input
from adapterbot.records import Digest, Name, Record

MIN_EXPERTS, MAX_EXPERTS = 2, 64

Experts = Annotated[int, Field(ge=MIN_EXPERTS, le=MAX_EXPERTS)]
HiddenDim = Annotated[int, Field(ge=1, le=16_384)]
Temperature = Annotated[float, Field(ge=1e-6, le=100.0, allow_inf_nan=False)]
TopK = Annotated[int, Field(ge=1, le=MAX_EXPERTS)]


class Router(StrEnum):
    """Whether every decoder layer has a gate of its own, or all share one."""

    PER_LAYER = "per-layer"
    SHARED = "shared"


class GateConfig(Record):
    """The gate: p = softmax(G x / τ) over `num_task_adapters`, the `top_k` largest renormalised.

    `hidden_dim` is the width of the base model, None where soup.yaml leaves it to the model.
    """

    num_task_adapters: Experts
    hidden_dim: HiddenDim | None = None
    temperature: Temperature = 1.0
    top_k: TopK = 2
    router: Router = Router.PER_LAYER

    @model_validator(mode="after")
    def _top_k_fits(self) -> Self:
        if self.top_k > self.num_task_adapters:
            raise ValueError(
                f"top_k {self.top_k} exceeds num_task_adapters {self.num_task_adapters}"
            )
        return self


class Expert(Record):
    """One task adapter: how it is called, where it lies seen from the mixture, and its digest."""

    name: Name
    path: Annotated[str, Field(min_length=1, max_length=4096)]
    digest: Digest


class MixtureManifest(Record):
    """mole_config.json. Experts are in the gate's order."""

    version: Literal[1] = 1
    base_model: Annotated[str, Field(min_length=1, max_length=4096)]
    layers: Annotated[int, Field(ge=1, le=4096)]
    gate: GateConfig
    experts: Annotated[tuple[Expert, ...], Field(min_length=MIN_EXPERTS, max_length=MAX_EXPERTS)]

    @model_validator(mode="after")
    def _gate_is_for_these(self) -> Self:
        names = [expert.name for expert in self.experts]
        if len(set(names)) != len(names):
            raise ValueError("two experts have one name")
        if len(names) != self.gate.num_task_adapters:
            raise ValueError(
                f"the gate is for {self.gate.num_task_adapters} experts, and {len(names)} are named"
            )
        return self


def parse_manifest(content: bytes, shown: str) -> MixtureManifest:
    """A mixture's manifest.

    Raises:
        InputError: it is not one, or contradicts itself.
    """
    try:
        return MixtureManifest.model_validate_json(content)
    except ValidationError as error:
        raise bad_input(error, file=shown, fix="restore what `mole train` wrote") from error
