"""lm-eval's own filters and metrics judge the answer, in a process that its tasks share.

No suite names these scorers: `kind: lm_eval` does, and `suite_lm_eval` chooses among them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import ClassVar

from pydantic import JsonValue, PrivateAttr

from adapterbot.errors import InputError
from adapterbot.eval.answers import Answer, Request, Sample, Scored
from adapterbot.eval.scorers.base import Files
from adapterbot.eval.scorers.bits_per_byte import BitsPerByte
from adapterbot.eval.scorers.lm_eval_process import LmEvalProcess, take
from adapterbot.eval.scorers.perplexity import Perplexity
from adapterbot.eval.scorers.process import ProcessTimeout
from adapterbot.eval.scorers.worker import ReplyingScorer, Unready
from adapterbot.files import jsonl
from adapterbot.importing import extras
from adapterbot.records import ScoreKind, Unit

_ROW_LIMIT = 1024 * 1024
_SHOW_SECONDS = 600.0


def directory_of(path: str, files: Files) -> tuple[str, dict[str, JsonValue]]:
    """A task's directory, relative to the repository, and the text of every file in it by path.

    Args:
        path: the directory, or a YAML file in it, relative to the suite.

    Raises:
        InputError: it is empty, or a file cannot be read as text.
    """
    home = files.path(path)
    if PurePosixPath(home).suffix in (".yaml", ".yml"):
        home = PurePosixPath(home).parent.as_posix()
    whole = Files(files.tree)
    contents: dict[str, JsonValue] = {
        name: whole.text(name)
        for name in sorted(files.tree.files(home))
        if "__pycache__" not in PurePosixPath(name).parts
    }
    if not contents:
        raise InputError("holds no files", file=home, fix="name the directory of the task")
    return home, contents


class LmEval(ReplyingScorer):
    """What all of them share: the task's directory, taken in whole, and lm-eval's version.

    task, metric, filter: as lm-eval names them; the only one where None.
    path: the directory, relative to the suite; `home` is the same relative to the repository.
    """

    what: ClassVar[str] = "lm-eval"
    derived: ClassVar[frozenset[str]] = ReplyingScorer.derived | {"files", "home", "version"}

    path: str
    task: str
    metric: str | None = None
    filter: str | None = None
    home: str = ""
    version: str = ""
    _taken: LmEvalProcess | None = PrivateAttr(default=None)

    @classmethod
    def resolve(cls, options: Mapping[str, JsonValue], files: Files) -> Mapping[str, JsonValue]:
        with extras("lm-eval", "tasks of lm-eval"):
            installed = version("lm_eval")
        home, contents = directory_of(str(options["path"]), files)
        return {**options, "home": home, "version": installed, "contents": contents}

    def rows(self) -> Iterator[tuple[int, dict[str, JsonValue]]]:
        """What the task is, and what it asks of each document: the lines of `lm_eval_side.show`.

        Raises:
            InputError: lm-eval cannot load the task, or we cannot evaluate it.
        """
        try:
            written = self._process().rows(self._meant(), _SHOW_SECONDS)
        except Unready as error:
            raise self.unloadable(str(error)) from None
        except ProcessTimeout as error:
            raise self.unloadable(f"it takes longer than {_SHOW_SECONDS:g} s") from error
        except (OSError, EOFError, ValueError) as error:
            raise self.unloadable("it ended its process") from error
        yield from jsonl.objects(
            self.home, io.BytesIO(written), limit=_ROW_LIMIT, shape="plain values"
        )

    def reply(self, asked: Mapping[str, JsonValue]) -> JsonValue:
        """As `LmEvalProcess.ask`."""
        return self._process().ask(self._meant(), asked, self.timeout)

    def close(self) -> None:
        if self._taken is not None:
            self._taken.leave()
            self._taken = None
        super().close()

    def _process(self) -> LmEvalProcess:
        if self._taken is None:
            self._taken = take(self.home, self.contents)
        return self._taken

    def _meant(self) -> dict[str, JsonValue]:
        return {"task": self.task, "metric": self.metric, "filter": self.filter}

    def unloadable(self, reason: str) -> InputError:
        return InputError(
            f"lm-eval's task {self.task!r} cannot be evaluated: {reason}",
            file=self.home,
            fix="correct the task, or name another",
        )

    def score(self, sample: Sample, answer: Answer) -> Scored:
        answers: list[JsonValue] = [answer.text]
        if self.request is not Request.GENERATE:
            greedy = answer.greedy or (None,) * len(answer.loglikelihoods)
            answers = [list(both) for both in zip(answer.loglikelihoods, greedy, strict=True)]
        asked: dict[str, JsonValue] = {"id": sample.id, "answers": answers}
        return self.ask({**asked, "doc_digest": sample.fields["doc_digest"]})


class LmEvalText(LmEval):
    """A metric of generated text, in its own unit."""

    name: ClassVar[str] = "lm_eval_text"


class LmEvalMatch(LmEvalText):
    """Whether generated text is the expected one."""

    name: ClassVar[str] = "lm_eval_match"
    kind: ClassVar[ScoreKind] = ScoreKind.BINARY
    unit: ClassVar[Unit] = Unit.FRACTION


class LmEvalWeighed(LmEval):
    """What a task makes of its choices' likelihoods, in its own unit."""

    name: ClassVar[str] = "lm_eval_weighed"
    request: ClassVar[Request] = Request.CHOICES
    greedy: ClassVar[bool] = True

    def check(self, sample: Sample) -> str | None:
        """A continuation of no characters has no likelihood."""
        return None if all(sample.choices) else "has an empty choice"


class LmEvalChoices(LmEvalWeighed):
    """Whether the likeliest choice is the expected one, or the greedy one."""

    name: ClassVar[str] = "lm_eval_choices"
    kind: ClassVar[ScoreKind] = ScoreKind.BINARY
    unit: ClassVar[Unit] = Unit.FRACTION


class LmEvalLikelihood(LmEval):
    """What a task makes of the likelihood of one continuation, in its own unit."""

    name: ClassVar[str] = "lm_eval_likelihood"
    request: ClassVar[Request] = Request.LIKELIHOOD
    greedy: ClassVar[bool] = True


class LmEvalGreedy(LmEvalLikelihood):
    """Whether the continuation is what the model would have written."""

    name: ClassVar[str] = "lm_eval_greedy"
    kind: ClassVar[ScoreKind] = ScoreKind.BINARY
    unit: ClassVar[Unit] = Unit.FRACTION


class LmEvalPerplexity(LmEval, Perplexity):
    """exp(−Σ log P / Σ size), with lm-eval's count of the words or bytes of each text as its size,
    or 1 for `perplexity` (`lm_eval.api.metrics.weighted_perplexity` and `perplexity`)."""

    name: ClassVar[str] = "lm_eval_perplexity"

    def score(self, sample: Sample, answer: Answer) -> Scored:
        return Perplexity.score(self, sample, _sized(sample, answer))


class LmEvalRolling(LmEvalPerplexity):
    """The same of whole texts."""

    name: ClassVar[str] = "lm_eval_rolling"
    request: ClassVar[Request] = Request.ROLLING


class LmEvalBits(LmEval, BitsPerByte):
    """−Σ log₂ P / Σ bytes of whole texts (`lm_eval.api.metrics.bits_per_byte`)."""

    name: ClassVar[str] = "lm_eval_bits"
    request: ClassVar[Request] = Request.ROLLING

    def score(self, sample: Sample, answer: Answer) -> Scored:
        return BitsPerByte.score(self, sample, _sized(sample, answer))


def _sized(sample: Sample, answer: Answer) -> Answer:
    """The answer with lm-eval's size of the text in the place of our own counts."""
    size = sample.fields["lm_eval_size"]
    counts = (size,) if isinstance(size, int) else ()
    return replace(answer, token_counts=counts, byte_counts=counts)
