"""Who answers: the one interface behind which a model may be in this process or anywhere else.

`evaluation` asks through it and knows nothing of tensors, actors or HTTP; `engine` answers with
a model of this process. No torch here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pydantic import JsonValue

from adapterbot.eval.answers import Answer, Sample
from adapterbot.eval.suite import Task
from adapterbot.weights.peft_dir import AdapterFiles, adapter_digest

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


@runtime_checkable
class Waiting(Protocol):
    """A model that is loaded when it is first asked."""

    def load(self) -> object:
        """Loads it now, unless that has been done.

        Raises:
            InputError: it cannot be loaded.
            OurFailure: the device's memory is too small.
        """


@runtime_checkable
class SideBySide(Protocol):
    """A model that can answer one batch under several adapters, each row under its own."""

    def by_row(self, adapters: Mapping[str, AdapterFiles]) -> AbstractContextManager[None] | None:
        """The adapters under the base inside, by digest, one variant of the model each, in order;
        None where rows cannot differ in one of them.

        Raises:
            InputError: one of them does not fit.
        """


class Attached(Protocol):
    """A composite on a loaded model."""

    def selected(self) -> AbstractContextManager[None]:
        """Live inside, as if it were not there after."""

    def shares(self, prompt: Ids, answer: Ids) -> tuple[float, ...]:
        """How much of an answer each part wrote, summed over the answer's tokens."""

    def detach(self) -> None:
        """Leaves the model as it was found."""


class Composite(Protocol):
    """Adapters that lie under the base together, by the hand of whoever knows how: a mixture."""

    @property
    def shown(self) -> str:
        """How errors name it."""

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides what it does."""

    @property
    def parts(self) -> tuple[AdapterFiles, ...]:
        """The adapters."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the parts are called."""

    def attach(self, model: Any) -> Attached:
        """Puts it on a loaded model.

        Raises:
            InputError: it does not fit.
        """

    def export(self, target: Path) -> Path:
        """Copies all that it is made of into a new directory, which stands alone."""

    @property
    def reader(self) -> Callable[[Path], Composite]:
        """What reads such a copy: a module's function, which another process can import."""


Subject = AdapterFiles | Composite
"""What is evaluated under a base."""


def parts(subject: Subject | None) -> tuple[AdapterFiles, ...]:
    """The adapters that a subject consists of; none for the bare base."""
    if subject is None:
        return ()
    return (subject,) if isinstance(subject, AdapterFiles) else subject.parts


def digest_of(subject: Subject | None) -> str:
    """What stands for a subject in the cache; "" for the bare base.

    Raises:
        InputError: a file is missing or is a link.
    """
    if subject is None:
        return ""
    return adapter_digest(subject.path) if isinstance(subject, AdapterFiles) else subject.digest


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

    def identity(self) -> Identity:
        """What decides the answers beside adapter and question."""

    def under(self, files: Subject | None, digest: str) -> AbstractContextManager[None]:
        """The adapter under the base inside, the bare base after; None is the bare base.

        Raises:
            InputError: it does not fit, or this model cannot take it.
        """

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer | Unanswered]]:
        """Yields (index in `questions`, answer) in any order, each question once.

        Raises:
            InputError: a question cannot be put to this model.
            OurFailure: the model cannot answer.
        """

    def tokens(self, text: str) -> Ids:
        """An answer as this model would write it, to serve as a draft."""

    def shares(
        self, composite: Composite, answered: Sequence[tuple[Sample, str]]
    ) -> tuple[float, ...]:
        """How much of some answers each part of a composite wrote: shares that sum to 1.

        Empty where there is nothing to share, or where nobody can look into the model.
        """

    def close(self) -> None:
        """Lets go of what it holds."""
