"""What a mixture of LoRAs is made of, as soup.yaml says it, checked before anything is loaded.

Reads the seed's `training.mole` block and Soup's flat keys (`mole_task_adapters`, `mole_top_k`,
`mole_temperature`). Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from adapterbot.errors import InputError
from adapterbot.files.yamlfile import Path, YamlFile, parse, validate
from adapterbot.records import Record
from adapterbot.weights.mixture_config import (
    MAX_EXPERTS,
    MIN_EXPERTS,
    Experts,
    GateConfig,
    HiddenDim,
    Router,
    Temperature,
    TopK,
)

TASK = "moe_lora_routing"

# As `epoch` is like `epochs`; Soup's own `warmup_auto` is less like `warmup_ratio`.
_ALMOST = 0.87

Paths = Annotated[tuple[str, ...], Field(min_length=MIN_EXPERTS, max_length=MAX_EXPERTS)]


class Scheduler(StrEnum):
    """How the learning rate goes on after its warm-up."""

    CONSTANT = "constant"
    COSINE = "cosine"
    LINEAR = "linear"


class _Pace(BaseModel):
    """How steps follow each other, as Soup says it too.

    Attributes:
        gradient_accumulation_steps: passes for one step of the optimiser.
        eval_steps: optimiser steps between two evaluations and checkpoints.
    """

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 3
    lr: Annotated[float, Field(gt=0, le=1.0)] = 0.02
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=4096)] = 1
    scheduler: Scheduler = Scheduler.COSINE
    warmup_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    eval_steps: Annotated[int, Field(ge=1)] = 50


class _Losses(BaseModel):
    """What is learnt beside the answers.

    Attributes:
        balance: weight of the load-balance loss, 0 for none.
        guide: weight, at the start, of the loss that leads a row's tokens to the expert that
            answers the row best alone; it falls to 0 by the last. 0 for none.
    """

    balance: Annotated[float, Field(ge=0.0, le=10.0)] = 0.01
    guide: Annotated[float, Field(ge=0.0, le=10.0)] = 1.0


class TrainingPlan(_Pace, _Losses, Record):
    """How the gate is trained; `batch_size` is the rows of one forward pass."""

    batch_size: Annotated[int, Field(ge=1, le=4096)] = 16
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class MixtureConfig(Record):
    """A mixture to train: base, experts in the gate's order, data, gate and training.

    Paths are as soup.yaml writes them, relative to that file. `doubts` are a line each for fields
    that are not read, and are spelt almost like one that is.
    """

    path: str
    base: str
    experts: Paths
    train: tuple[str, ...]
    validation: tuple[str, ...]
    val_split: float
    max_length: int
    output: str
    gate: GateConfig
    training: TrainingPlan
    doubts: tuple[str, ...] = ()


class _Mole(_Losses):
    """`training.mole`: the seed's four fields and ours."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_task_adapters: Experts | None = None
    hidden_dim: HiddenDim | None = None
    temperature: Temperature | None = None
    top_k: TopK | None = None
    router: Router = Router.PER_LAYER
    adapters: Paths | None = None


class _Training(_Pace):
    # Soup's schema has hundreds of fields and belongs to Soup; these are the ones a gate needs.
    model_config = ConfigDict(extra="ignore", frozen=True)

    mole: _Mole = _Mole()
    mole_task_adapters: Paths | None = None
    mole_top_k: TopK | None = None
    mole_temperature: Temperature | None = None
    batch_size: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = 16
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None


class _Data(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    train: str | tuple[str, ...]
    validation: str | tuple[str, ...] = ()
    val_split: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    max_length: Annotated[int, Field(ge=2, le=1_048_576)] = 2048


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    base: Annotated[str, Field(min_length=1, max_length=512)]
    task: str = ""
    backend: str = "transformers"
    data: _Data
    training: _Training = _Training()
    output: Annotated[str, Field(min_length=1, max_length=4096)] = "./output"


def read_config(content: bytes, name: str) -> MixtureConfig:
    """The mixture that a soup.yaml describes.

    Raises:
        InputError: naming the field, its line and the fix.
    """
    file = parse(content, name)
    if not isinstance(file.content, dict):
        raise InputError("must be a mapping", file=name, fix=f"start with `task: {TASK}`")
    found = validate(_File, file, file.content)
    if found.task != TASK:
        raise file.error(("task",), f"is {found.task!r}, not {TASK!r}", f"write `task: {TASK}`")
    if found.backend == "mlx":
        raise file.error(
            ("backend",),
            "is mlx, which has no per-token dispatch between adapters",
            "use the transformers backend",
        )
    training, mole = found.training, found.training.mole
    if training.batch_size == "auto":
        raise file.error(
            ("training", "batch_size"), "is auto", "write a number: a gate needs little"
        )
    experts = _experts(training, file)
    return MixtureConfig(
        path=name,
        base=found.base,
        experts=experts,
        train=_listed(found.data.train),
        validation=_listed(found.data.validation),
        val_split=found.data.val_split,
        max_length=found.data.max_length,
        output=found.output,
        gate=_gate(training, len(experts), file),
        training=TrainingPlan(
            batch_size=training.batch_size,
            seed=training.seed or 0,
            **training.model_dump(include=set(_Pace.model_fields)),
            **mole.model_dump(include=set(_Losses.model_fields)),
        ),
        doubts=tuple(_doubts(file, file.content)),
    )


def _doubts(file: YamlFile, content: Mapping[object, object]) -> Iterator[str]:
    for section, model in (("training", _Training), ("data", _Data)):
        given = content.get(section)
        for key in given if isinstance(given, Mapping) else ():
            if isinstance(key, str) and key not in model.model_fields:
                for meant in get_close_matches(key, model.model_fields, 1, _ALMOST):
                    place = file.place(section, key)
                    yield f"{file.name}: {place}: is not read; did you mean {meant}?"


_Value = TypeVar("_Value")


def _experts(training: _Training, file: YamlFile) -> tuple[str, ...]:
    experts, at = _either(
        file,
        (("training", "mole", "adapters"), training.mole.adapters),
        (("training", "mole_task_adapters"), training.mole_task_adapters),
    )
    if experts is None:
        raise file.error(
            at, "is missing", "list the task adapters' directories, in the gate's order"
        )
    if len(set(experts)) != len(experts):
        twice = next(path for path in experts if experts.count(path) > 1)
        raise file.error(at, f"names {twice!r} twice", "name every adapter once")
    return experts


def _gate(training: _Training, experts: int, file: YamlFile) -> GateConfig:
    mole = training.mole
    if mole.num_task_adapters not in (None, experts):
        raise file.error(
            ("training", "mole", "num_task_adapters"),
            f"is {mole.num_task_adapters}, but {experts} adapters are listed",
            "make the two agree",
        )
    top_k, at = _either(
        file,
        (("training", "mole", "top_k"), mole.top_k),
        (("training", "mole_top_k"), training.mole_top_k),
    )
    if top_k is not None and top_k > experts:
        raise file.error(at, f"is {top_k}, but there are {experts} adapters", "lower it")
    temperature, _ = _either(
        file,
        (("training", "mole", "temperature"), mole.temperature),
        (("training", "mole_temperature"), training.mole_temperature),
    )
    return GateConfig(
        num_task_adapters=experts,
        hidden_dim=mole.hidden_dim,
        temperature=1.0 if temperature is None else temperature,
        top_k=min(2, experts) if top_k is None else top_k,
        router=mole.router,
    )


def _either(
    file: YamlFile, ours: tuple[Path, _Value | None], soups: tuple[Path, _Value | None]
) -> tuple[_Value | None, Path]:
    """The value of a field that has two spellings, and the one that was used."""
    (at, value), (soups_at, soups_value) = ours, soups
    if soups_value is None:
        return value, at
    if value is not None:
        raise file.error(soups_at, f"is given as {'.'.join(map(str, at))} too", "keep one of them")
    return soups_value, soups_at


def _listed(given: str | tuple[str, ...]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else given
