"""The model as a respondent: samples in, answers out, whatever adapter is under the base. (torch)

It turns samples into requests, has them batched, and puts the pieces of an answer together. It
knows nothing of adapters, caches or scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adapterbot.eval.answers import Answer, Request, Sample
from adapterbot.eval.base_model import BaseModel
from adapterbot.eval.batches import Batcher
from adapterbot.eval.forward import Forward
from adapterbot.eval.generation import GenerationRequest, Generator, cut_at_stop
from adapterbot.eval.loglikelihood import LikelihoodRequest, loglikelihoods
from adapterbot.eval.prompts import Ids, Prompts
from adapterbot.eval.sampling import Choice, noise_key
from adapterbot.eval.suite import Task


@dataclass(frozen=True)
class Question:
    """One sample of one task, and what another adapter answered to it (None: not known)."""

    task: Task
    sample: Sample
    draft: Ids | None = None


@dataclass(frozen=True)
class Unanswered:
    """Why a sample has no answer."""

    reason: str


class Respondent:
    """Answers samples with one loaded model."""

    def __init__(self, base: BaseModel, token_budget: int | None) -> None:
        self.prompts = Prompts(base.tokenizer, base.name)
        self._base = base
        self._forward = Forward(base.model)
        self._generator = Generator(base, self._forward, self.prompts.text)
        self._batcher = Batcher(token_budget, base.device.type)

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer | Unanswered]]:
        """Yields (index in `questions`, answer) as batches are done, each question once.

        Raises:
            InputError: a sample is a chat and the tokenizer has no chat template.
            OurFailure: one sample alone does not fit into the device's memory.
        """
        generate: list[tuple[int, GenerationRequest]] = []
        likelihood: list[tuple[int, LikelihoodRequest]] = []
        for index, question in enumerate(questions):
            if question.task.request is Request.GENERATE:
                request = self._generation(question)
                longest = len(request.prompt) + 1
                generate.append((index, request))
            else:
                asked = self._likelihood(question)
                longest = len(asked.context) + max(map(len, asked.continuations)) - 1
                likelihood.append((index, asked))
            if self._base.context and longest > self._base.context:
                (generate if question.task.request is Request.GENERATE else likelihood).pop()
                yield (
                    index,
                    Unanswered(
                        f"{longest} tokens, but the model has {self._base.context} positions"
                    ),
                )
        yield from self._generated(generate)
        yield from self._likelihoods(questions, likelihood)

    def _generation(self, question: Question) -> GenerationRequest:
        settings = question.task.generation
        prompt = self.prompts.prompt(question.sample)
        limit = settings.max_new_tokens
        if self._base.context:
            limit = max(1, min(limit, self._base.context - len(prompt)))
        noise = noise_key(settings.seed, question.task.name, question.sample.id)
        return GenerationRequest(
            prompt=prompt,
            limit=limit,
            stop=settings.stop,
            choice=Choice(settings.temperature, settings.top_p, noise),
            draft=question.draft or (),
        )

    def _generated(
        self, asked: Sequence[tuple[int, GenerationRequest]]
    ) -> Iterator[tuple[int, Answer]]:
        requests = [request for _, request in asked]
        for at, ids in self._batcher.run(requests, lambda r: r.tokens, self._generator.answer):
            index, request = asked[at]
            yield (
                index,
                Answer(text=cut_at_stop(self.prompts.text(ids), request.stop), token_ids=ids),
            )

    def _likelihood(self, question: Question) -> LikelihoodRequest:
        pairs = [self.prompts.pair(question.sample, text) for text in _continuations(question)]
        return LikelihoodRequest(pairs[0][0], tuple(continuation for _, continuation in pairs))

    def _likelihoods(
        self, questions: Sequence[Question], asked: Sequence[tuple[int, LikelihoodRequest]]
    ) -> Iterator[tuple[int, Answer | Unanswered]]:
        requests = [request for _, request in asked]
        for at, values in self._batcher.run(requests, lambda r: r.tokens, self._computed):
            index, request = asked[at]
            if not all(map(math.isfinite, values)):
                yield index, Unanswered("its log-likelihood is not finite")
                continue
            texts = _continuations(questions[index])
            yield (
                index,
                Answer(
                    text=texts[values.index(max(values))] if len(texts) > 1 else "",
                    loglikelihoods=values,
                    token_counts=tuple(map(len, request.continuations)),
                    byte_counts=tuple(len(text.encode()) for text in texts),
                ),
            )

    def _computed(self, requests: Sequence[LikelihoodRequest]) -> list[tuple[float, ...]]:
        return loglikelihoods(self._base, self._forward, requests)


def _continuations(question: Question) -> tuple[str, ...]:
    if question.task.request is Request.CHOICES:
        return question.sample.choices
    return (question.sample.expected,)
