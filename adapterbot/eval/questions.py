"""Who answers: the one interface behind which a model may be in this process or anywhere else.

`evaluation` asks through it and knows nothing of tensors, actors or HTTP; `engine` answers with
a model of this process. No torch here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pydantic import JsonValue

from adapterbot.eval.answers import Answer, Sample
from adapterbot.eval.suite import Task
from adapterbot.weights.peft_dir import AdapterFiles

Ids = tuple[int, ...]
"""Token ids of one text."""


@dataclass(frozen=True)
class Question:
    """One sample of one task.

    Attributes:
        draft: the tokens of another adapter's answer, made when asked for.
        variant: to which of the model's variants it is put, where there are several under the base
            at once.
    """

    task: Task
    sample: Sample
    draft: Callable[[], Ids] | None = None
    variant: int = 0


def noise_key(seed: int, task: str, sample_id: str) -> int:
    """A 63-bit key for one sample under one seed, whichever adapter answers."""
    text = f"{seed}\0{task}\0{sample_id}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") & ((1 << 63) - 1)


@dataclass(frozen=True)
class Unanswered:
    """Why a sample has no answer."""

    reason: str


@dataclass(frozen=True)
class Identity:
    """What decides a model's answers besides adapter and question; part of every cache key.

    Attributes:
        base: digest of the base model's files, or what stands for them.
        settings: how it computes, and on what.
        versions: of the libraries that compute.
    """

    base: str
    settings: Mapping[str, JsonValue]
    versions: Mapping[str, str]


@runtime_checkable
class Shared(Protocol):
    """A model with room for several adapters at the same time."""

    def beside(self) -> Model:
        """The same model for another thread, under an adapter of its own."""


class Model(Protocol):
    """A base model that answers under one adapter after another."""

    @property
    def name(self) -> str:
        """How the base is named; adapters must have been trained on it."""

    @property
    def device(self) -> str:
        """What a reader calls the device."""

    @property
    def gpus(self) -> int:
        """How many GPUs of ours it holds."""

    @property
    def dtype(self) -> str:
        """The precision, such as `float32`; "" where it is not known."""

    def identity(self, files: AdapterFiles | None) -> Identity:
        """What decides the answers under an adapter."""

    def under(self, files: AdapterFiles | None, digest: str) -> AbstractContextManager[None]:
        """The adapter under the base inside, the bare base after; None is the bare base."""

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer | Unanswered]]:
        """Yields (index in `questions`, answer) in any order, each question once.

        Raises:
            InputError: a question cannot be put to this model.
            OurFailure: the model cannot answer.
        """

    def tokens(self, text: str) -> Ids:
        """An answer as this model would write it, to serve as a draft."""

    def close(self) -> None:
        """Lets go of what it holds."""
