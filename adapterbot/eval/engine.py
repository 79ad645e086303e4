"""The evaluation of this process: a base that is loaded when it is first asked. (torch)

Until then only its files, the settings and the device are known, which are all that the key of a
cached answer takes. So transformers is not imported here, and `local` only when the base is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from adapterbot.eval.answers import Answer, Sample
from adapterbot.eval.cache import ScoreCache
from adapterbot.eval.evaluation import Evaluation
from adapterbot.eval.found_base import find_base, identity
from adapterbot.eval.questions import Composite, Identity, Ids, Question, Subject, Unanswered
from adapterbot.eval.settings import EngineSettings
from adapterbot.weights.peft_dir import AdapterFiles

if TYPE_CHECKING:
    from adapterbot.eval.base_model import BaseModel
    from adapterbot.eval.local import LocalModel


class WaitingModel:
    """A base model of this process that waits to be asked before it is loaded.

    One that is spread as accelerate sees fit does not wait.
    """

    def __init__(
        self, base: Path | str, settings: EngineSettings, imported: Callable[[], None]
    ) -> None:
        self._found = find_base(base, settings)
        self._settings = settings
        self._imported = imported
        self._loaded: LocalModel | None = None
        if not self._found.known:
            self.load()

    @property
    def name(self) -> str:
        return self._found.name

    @property
    def device(self) -> str:
        return self._loaded.device if self._loaded else self._found.device_name

    @property
    def gpus(self) -> int:
        return self._loaded.gpus if self._loaded else 0

    @property
    def dtype(self) -> str:
        return str(self._found.dtype).removeprefix("torch.")

    @cached_property
    def _identity(self) -> Identity:
        if self._loaded:
            return self._loaded.identity()
        return identity(self._found.digest, self._settings, self._found.device, self._found.dtype)

    def identity(self) -> Identity:
        """As `LocalModel.identity`."""
        return self._identity

    def load(self) -> LocalModel:
        """The loaded model.

        Raises:
            InputError: the base cannot be loaded.
            OurFailure: the device's memory is too small, or a package is missing.
        """
        if self._loaded is None:
            self._imported()
            from adapterbot.eval.base_model import load_found
            from adapterbot.eval.local import LocalModel

            self._loaded = LocalModel(load_found(self._found), self._settings)
        return self._loaded

    def under(self, files: Subject | None, digest: str) -> AbstractContextManager[None]:
        """As `LocalModel.under`."""
        return self.load().under(files, digest)

    def by_row(self, adapters: Mapping[str, AdapterFiles]) -> AbstractContextManager[None] | None:
        """As `LocalModel.by_row`."""
        return self.load().by_row(adapters)

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer | Unanswered]]:
        """As `Respondent.answers`."""
        return self.load().answers(questions) if questions else iter(())

    def tokens(self, text: str) -> Ids:
        """As `LocalModel.tokens`."""
        return self.load().tokens(text)

    def shares(
        self, composite: Composite, answered: Sequence[tuple[Sample, str]]
    ) -> tuple[float, ...]:
        """As `Model.shares`."""
        return self.load().shares(composite, answered)

    def close(self) -> None:
        """Takes every adapter off the base."""
        if self._loaded:
            self._loaded.close()


class Engine(Evaluation):
    """An evaluation with a base model of this process; a context manager."""

    def __init__(
        self,
        base: Path | str,
        settings: EngineSettings | None = None,
        *,
        cache: ScoreCache | None = None,
        imported: Callable[[], None] = lambda: None,
    ) -> None:
        """Finds the base.

        Args:
            base: a model directory, or a name on the Hub.
            cache: where scores are kept between runs; without one nothing is.
            imported: imports what loading the base takes, right before that is done.

        Raises:
            InputError: there is no such base, or no such device.
        """
        self._waiting = WaitingModel(base, settings or EngineSettings(), imported)
        super().__init__(self._waiting, cache=cache)

    @property
    def base(self) -> BaseModel:
        """The loaded base.

        Raises:
            InputError: it cannot be loaded.
        """
        return self._waiting.load().base
