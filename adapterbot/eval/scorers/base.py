"""What every scorer is: frozen options, a few facts, and one function from an answer to a score.

A scorer's fields are its options in the suite, so the suite's JSON Schema and its error messages
come from the class itself. A score is never invented: where an answer cannot be judged, the
scorer says why (`Scored.missing`). A *wrong* answer, however broken, is a score.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import JsonValue

from adapterbot.errors import InputError
from adapterbot.eval.answers import Answer, Request, Sample, Scored
from adapterbot.files.paths import join
from adapterbot.files.tree import Tree
from adapterbot.records import Direction, Record, ScoreKind, Unit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RIGHT = Scored(1.0)
WRONG = Scored(0.0)


@dataclass(frozen=True)
class Files:
    """The files beside a suite, for options that name one."""

    tree: Tree
    directory: str = ""

    def path(self, path: str) -> str:
        """`path` relative to the repository."""
        return join(self.directory, path, field="scorer")

    def text(self, path: str) -> str:
        """The text of one file.

        Raises:
            InputError: missing, too large, a link, outside the repository, or not UTF-8.
        """
        where = self.path(path)
        try:
            return self.tree.read(where).decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError("is not UTF-8 text", file=where, fix="save it as UTF-8") from error


class Scorer(Record):
    """Base of all scorers; the fields of a subclass are its options.

    `direction` is the default that a suite may turn. `informative` scorers are shown and not
    gated unless the suite says so. `timed` ones ask how long the answer took, which a draft would
    falsify; `greedy` ones, whether the model would have written what was asked of it. Fields in
    `derived` are no options: `resolve` fills them in.
    """

    name: ClassVar[str]
    kind: ClassVar[ScoreKind] = ScoreKind.BINARY
    unit: ClassVar[Unit] = Unit.FRACTION
    direction: ClassVar[Direction] = Direction.HIGHER
    request: ClassVar[Request] = Request.GENERATE
    informative: ClassVar[bool] = False
    timed: ClassVar[bool] = False
    greedy: ClassVar[bool] = False
    derived: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def resolve(cls, options: Mapping[str, JsonValue], files: Files) -> Mapping[str, JsonValue]:
        """Options that need no repository any more: the files they name are taken in.

        Raises:
            InputError: a named file cannot be read.
        """
        return options

    def check(self, sample: Sample) -> str | None:
        """Why this sample cannot be scored, found out before any model is loaded."""
        return None

    def identity(self) -> Mapping[str, JsonValue]:
        """What decides the scores, for the digest of the task."""
        return self.model_dump(mode="json", by_alias=True)

    @abstractmethod
    def score(self, sample: Sample, answer: Answer) -> Scored:
        """Judge one answer."""

    def close(self) -> None:
        """End what the scorer started (processes); it may not be used afterwards."""


class CorpusScorer(Scorer):
    """A metric of a whole corpus that is a function of sums over its samples.

    `Scored.stats` of each sample add up; a resample is a weighting of the samples, so its totals
    are one row of `weights @ stats` and its metric one entry of `aggregate`.
    """

    kind: ClassVar[ScoreKind] = ScoreKind.CONTINUOUS

    @abstractmethod
    def aggregate(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """The metric of corpora with these totals: shape (…, k) to shape (…).

        NaN where a corpus is empty.
        """


def accepted(sample: Sample) -> tuple[str, ...]:
    """The answers that count as right: `expected`, or each of them when the row has a list."""
    listed = sample.fields.get("expected")
    if isinstance(listed, list) and listed and all(isinstance(item, str) for item in listed):
        return tuple(str(item) for item in listed)
    return (sample.expected,)


def needs_expected(sample: Sample) -> str | None:
    """The complaint of scorers that compare with an `expected` of more than spaces."""
    return (
        None
        if all(text.strip() for text in accepted(sample))
        else "has no `expected` to compare with"
    )
