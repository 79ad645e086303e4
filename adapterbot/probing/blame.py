"""Which training rows broke it: those whose gradients pull towards the answers that got worse.

Learning from row z moves the adapter's weights θ along −∇ℓ(z), and so changes the loss of a text s
by −⟨∇ℓ(s), ∇ℓ(z)⟩ to first order (TracIn, arXiv:2002.08484, eq. 1 and §3.2). A row is to blame when
it makes what the broken adapter says likelier and what was expected less likely:

    pull(z) = ½ · mean over θ of cos(∇ℓ(z), ∇ℓ(said)) − cos(∇ℓ(z), ∇ℓ(expected))

with ∇ℓ(said) and ∇ℓ(expected) means over the samples, and θ the last good and the first bad
checkpoint: where the rows came in, and where they had been learnt.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from adapterbot.conversations import Example, TemplateRefusal, encode, messages_of
from adapterbot.errors import InputError
from adapterbot.eval.answers import Request
from adapterbot.eval.prompts import Prompts
from adapterbot.eval.suite import Task
from adapterbot.lock.row_files import Row
from adapterbot.lock.rows import as_added
from adapterbot.records import BlamedRow, SampleDiff
from adapterbot.weights.peft_dir import AdapterFiles

if TYPE_CHECKING:
    from adapterbot.eval.base_model import BaseModel

MOST_SHOWN = 10
MOST_ROWS = 100_000
MOST_SAMPLES = 64
# Positions in one pass forward and back, unless `token_budget` says otherwise.
TOKENS = 2048


@dataclass(frozen=True)
class Ranked:
    """The rows with the most pull, most first; how many were ranked, and how many could not be."""

    rows: tuple[BlamedRow, ...]
    count: int
    unread: int


@dataclass(frozen=True)
class Blame:
    """Ranks rows with a base model of this process.

    Attributes:
        tasks: what the samples belong to.
        tokens: at most so many positions in one pass.
    """

    base: BaseModel
    tasks: Sequence[Task]
    tokens: int = TOKENS

    def rank(
        self,
        rows: Iterable[Row],
        samples: Sequence[SampleDiff],
        checkpoints: Sequence[AdapterFiles],
    ) -> Ranked:
        """The rows that came between two checkpoints, by their pull.

        Args:
            rows: as files hold them; what is no conversation of a known format is left out.
            samples: what got worse, and what was said instead, most harmful first.
            checkpoints: the last good and the first bad one.

        Raises:
            InputError: nothing can be compared, there are too many rows, or an adapter is not LoRA.
            OurFailure: the memory of the device is too small.
        """
        found = list(islice(rows, MOST_ROWS + 1))
        if len(found) > MOST_ROWS:
            raise InputError(
                f"more than {MOST_ROWS:,} rows came in between",
                field="--blame",
                fix="keep more checkpoints, so that fewer rows come between two",
            )
        read = [(row, example) for row in found if (example := self._example(row))]
        said, expected = self._texts(samples[:MOST_SAMPLES])
        if not read or not expected:
            what = "row that came in between" if not read else "sample that got worse"
            raise InputError(
                f"no {what} can be read",
                field="--blame",
                fix="write rows as conversations, and samples with what is expected",
            )
        pulls = self.pulls([example for _, example in read], said, expected, checkpoints)
        order = sorted(range(len(read)), key=lambda index: -pulls[index])[:MOST_SHOWN]
        return Ranked(
            rows=tuple(BlamedRow(row=as_added(read[i][0]), pull=pulls[i]) for i in order),
            count=len(read),
            unread=len(found) - len(read),
        )

    def pulls(
        self,
        rows: Sequence[Example],
        said: Sequence[Example],
        expected: Sequence[Example],
        checkpoints: Sequence[AdapterFiles],
    ) -> list[float]:
        """The pull of each row, −1…1.

        Args:
            said: what was answered instead; may be empty, and the term is then left out.

        Raises:
            InputError, OurFailure: as `rank`.
        """
        import torch

        from adapterbot.weights.adapter import load_adapter
        from adapterbot.weights.attachment import attach
        from adapterbot.weights.row_gradients import mean_gradient, scale_to, similarities

        model, pad, tokens = self.base.model, self.base.pad, self.tokens
        total = torch.zeros(len(rows), dtype=torch.float64)
        for files in checkpoints:
            adapter = load_adapter(files)
            with attach(model, {"blamed": adapter}) as attached, attached.selected("blamed"):
                away = mean_gradient(model, adapter, expected, pad=pad, tokens=tokens)
                towards = mean_gradient(model, adapter, said, pad=pad, tokens=tokens)
                for direction, sign in ((away, -0.5), (towards, 0.5)):
                    scale_to(direction, sign)
                for module, (a, b) in away.items():
                    towards[module][0].add_(a)
                    towards[module][1].add_(b)
                along, lengths = similarities(model, adapter, rows, towards, pad=pad, tokens=tokens)
            total += along / lengths.clamp_min(1e-30)
        return [float(pull) for pull in (total / len(checkpoints)).clamp(-1.0, 1.0)]

    def _example(self, row: Row) -> Example | None:
        """A row as the trainer reads it, through the chat template; None for one that is not a
        conversation, that the template refuses, or that is longer than the model's context."""
        try:
            content = json.loads(row.content)
            messages = messages_of(content, file=row.file, line=row.line)
        except (ValueError, RecursionError, AttributeError, InputError):
            return None
        try:
            found = encode(self.base.tokenizer, messages, name=self.base.name)
        except TemplateRefusal:
            return None
        return self._fitting(found)

    def _fitting(self, example: Example) -> Example | None:
        long = self.base.context is not None and example.length > self.base.context
        return example if example.prompt and example.answer and not long else None

    def _texts(self, samples: Sequence[SampleDiff]) -> tuple[list[Example], list[Example]]:
        """What was said, and what was expected or, where nothing is, said before it broke."""
        prompts = Prompts(self.base.tokenizer, self.base.name)
        known = {(task.name, one.id): (task, one) for task in self.tasks for one in task.samples}
        said: list[Example] = []
        expected: list[Example] = []
        for diff in samples:
            task, sample = known[diff.task, diff.sample_id]
            end = self.base.tokenizer.eos_token_id
            ends = (end,) if end is not None and task.request is Request.GENERATE else ()
            for text, into in (
                (diff.candidate_output, said),
                (diff.expected or diff.baseline_output, expected),
            ):
                if text:
                    asked = [(sample, [text])]
                    ((context, (answer,)),) = prompts.contexts_and_continuations(asked)
                    if fitting := self._fitting(Example(context, answer + ends)):
                        into.append(fitting)
        return said, expected
