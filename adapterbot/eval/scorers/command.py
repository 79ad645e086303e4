"""A program of the suite's judges the answer."""

from __future__ import annotations

import json
from typing import Annotated, ClassVar

from pydantic import Field

from adapterbot.errors import InputError
from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.process import ProcessTimeout, environment, run
from adapterbot.eval.scorers.program import ProgramScorer, last_line, question, verdict
from adapterbot.files.strict_json import parse_json


class Command(ProgramScorer):
    """Runs `argv` once for each sample, without a shell, in the suite's directory.

    The sample and the model's `output` come as one JSON object on standard input; a number, or
    {"score": …}, is read from standard output. An exit status other than 0, or no reply in time,
    leaves the sample unscored.
    """

    name: ClassVar[str] = "command"

    argv: Annotated[tuple[Annotated[str, Field(pattern=r"^[^\x00]*$")], ...], Field(min_length=1)]

    def score(self, sample: Sample, answer: Answer) -> Scored:
        directory = self.working_directory()
        try:
            done = run(
                self.argv,
                directory=directory,
                env=environment(directory),
                stdin=json.dumps(question(sample, answer)).encode(),
                seconds=self.timeout,
            )
        except ProcessTimeout:
            return Scored(None, f"the command did not end in {self.timeout:g} s")
        except OSError as error:
            raise InputError(
                f"cannot run {self.argv[0]!r}: {error.strerror}",
                field="scorer.argv",
                fix="install it on the runner, or list it in the scorer's `files`",
            ) from error
        if done.status != 0:
            return Scored(
                None, f"the command ended with status {done.status}: {last_line(done.errors)}"
            )
        try:
            return verdict(parse_json(done.output.decode("utf-8", "replace").strip()))
        except ValueError:
            return Scored(None, "the command wrote neither a number nor JSON")
