"""The model as a respondent: samples in, answers out, whatever adapter is under the base. (torch)

It turns samples into requests, has them batched, and puts the pieces of an answer together. It
knows nothing of adapters, caches or scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from adapterbot.eval.answers import Answer, Request
from adapterbot.eval.base_model import BaseModel
from adapterbot.eval.batches import Batcher
from adapterbot.eval.drafts import Checked, DraftRequest, Worth, check_drafts, pilot
from adapterbot.eval.forward import Forward
from adapterbot.eval.generation import GenerationRequest, Generator, cut_at_stop
from adapterbot.eval.loglikelihood import LikelihoodRequest, loglikelihoods
from adapterbot.eval.prompts import Prompts
from adapterbot.eval.questions import Ids, Question, Unanswered
from adapterbot.eval.sampling import Choice, noise_key


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
        generate: dict[int, Question] = {}
        likelihood: dict[int, Question] = {}
        for index, question in enumerate(questions):
            kind = generate if question.task.request is Request.GENERATE else likelihood
            kind[index] = question
        yield from self._generated(generate)
        yield from self._weighed(likelihood)

    def _generated(
        self, questions: Mapping[int, Question]
    ) -> Iterator[tuple[int, Answer | Unanswered]]:
        prompts = self.prompts.prompts([question.sample for question in questions.values()])
        requests: dict[int, GenerationRequest] = {}
        for (index, question), prompt in zip(questions.items(), prompts, strict=True):
            if unfit := self._unfit(len(prompt), len(prompt) + 1):
                yield index, unfit
            else:
                requests[index] = self._request(question, prompt)
        drafts = {i: draft for i in requests if (draft := questions[i].draft) is not None}
        for index, checked in self._checked(requests, drafts):
            requests[index] = replace(requests[index], begun=checked.tokens)
            if checked.complete:
                yield index, self._answer(requests.pop(index), checked.tokens)
        for index, ids in self._batcher.run(requests, _tokens, self._generator.answer):
            yield index, self._answer(requests[index], ids)

    def _weighed(
        self, questions: Mapping[int, Question]
    ) -> Iterator[tuple[int, Answer | Unanswered]]:
        requests: dict[int, LikelihoodRequest] = {}
        for index, question in questions.items():
            request = LikelihoodRequest(
                *self.prompts.context_and_continuations(question.sample, _continuations(question))
            )
            if unfit := self._unfit(len(request.context), request.longest):
                yield index, unfit
            else:
                requests[index] = request
        for index, values in self._batcher.run(requests, _tokens, self._loglikelihoods):
            yield index, _judged(questions[index], requests[index], values)

    def _request(self, question: Question, prompt: Ids) -> GenerationRequest:
        settings = question.task.generation
        limit = settings.max_new_tokens
        if self._base.context:
            limit = max(1, min(limit, self._base.context - len(prompt)))
        noise = noise_key(settings.seed, question.task.name, question.sample.id)
        choice = Choice(settings.temperature, settings.top_p, noise)
        return GenerationRequest(prompt, limit, settings.stop, choice)

    def _unfit(self, prompt: int, longest: int) -> Unanswered | None:
        if not prompt:
            return Unanswered("the prompt is no token long")
        if self._base.context and longest > self._base.context:
            return Unanswered(f"{longest} tokens, but the model has {self._base.context} positions")
        return None

    def _checked(
        self, requests: Mapping[int, GenerationRequest], drafts: Mapping[int, Callable[[], Ids]]
    ) -> Iterator[tuple[int, Checked]]:
        """Checks drafts as long as that pays; yields what was checked."""
        worth = Worth()
        by_length = sorted(drafts, key=lambda index: len(requests[index].prompt))
        first = [by_length[at] for at in pilot(len(by_length))]
        rest = [index for index in by_length if index not in set(first)]
        for part in (first, rest):
            if not worth.pays:
                return
            waiting = {index: DraftRequest(requests[index], drafts[index]()) for index in part}
            for index, checked in self._batcher.run(
                waiting, _tokens, self._check, proceed=lambda: worth.pays
            ):
                worth.book(waiting[index], checked)
                yield index, checked

    def _check(self, drafts: Sequence[DraftRequest]) -> list[Checked]:
        return check_drafts(self._base, self._forward, self._generator, drafts)

    def _loglikelihoods(self, requests: Sequence[LikelihoodRequest]) -> list[tuple[float, ...]]:
        return loglikelihoods(self._base, self._forward, requests)

    def _answer(self, request: GenerationRequest, ids: Ids) -> Answer:
        return Answer(text=cut_at_stop(self.prompts.text(ids), request.stop), token_ids=ids)


def _tokens(request: GenerationRequest | DraftRequest | LikelihoodRequest) -> int:
    return request.tokens


def _continuations(question: Question) -> tuple[str, ...]:
    if question.task.request is Request.CHOICES:
        return question.sample.choices
    return (question.sample.expected,)


def _judged(
    question: Question, request: LikelihoodRequest, values: tuple[float, ...]
) -> Answer | Unanswered:
    if not all(map(math.isfinite, values)):
        return Unanswered("its log-likelihood is not finite")
    texts = _continuations(question)
    return Answer(
        text=texts[values.index(max(values))] if len(texts) > 1 else "",
        loglikelihoods=values,
        token_counts=tuple(map(len, request.continuations)),
        byte_counts=tuple(len(text.encode()) for text in texts),
    )
