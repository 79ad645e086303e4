"""The model as a respondent: samples in, answers out, whatever adapter is under the base. (torch)

It turns samples into requests, has them batched, and puts the pieces of an answer together. It
knows nothing of adapters, caches or scores.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Generic, TypeVar

from adapterbot.eval.answers import Answer, Request, cut_at_stop
from adapterbot.eval.batches import Batcher, one_pass
from adapterbot.eval.drafts import Worth
from adapterbot.eval.generation import GenerationRequest
from adapterbot.eval.loglikelihood import Likelihood, LikelihoodRequest
from adapterbot.eval.passes import Passes
from adapterbot.eval.prompts import Prompts
from adapterbot.eval.questions import Ids, Question, Unanswered, noise_key
from adapterbot.eval.rolling import LENGTH, windows
from adapterbot.eval.sampling import Choice
from adapterbot.eval.scorers import scorer_class
from adapterbot.eval.stems import stem_lengths

_Weighed = tuple[Likelihood, ...]
_Request = TypeVar("_Request", GenerationRequest, LikelihoodRequest)
_Result = TypeVar("_Result")

# A batch pads its stems, and what follows them, to the longest: a row may come to lie on twice the
# positions that it has.
_PADDED = 2


@dataclass(frozen=True)
class Timed(Generic[_Result]):
    """A result, and the seconds it took; None where it was not measured for itself."""

    value: _Result
    seconds: float | None


class Respondent:
    """Answers samples with one loaded model, wherever it is."""

    def __init__(self, prompts: Prompts, passes: Passes, batcher: Batcher) -> None:
        self.prompts = prompts
        self.passes = passes
        self._limits = passes.limits
        self._batcher = batcher

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer | Unanswered]]:
        """Yields (index in `questions`, answer) as batches are done, each question once.

        Raises:
            InputError: a sample is a chat and the tokenizer has no chat template.
            OurFailure: one sample alone does not fit into the device's memory.
        """
        generate: dict[int, Question] = {}
        likelihood: dict[int, Question] = {}
        rolling: dict[int, Question] = {}
        kinds = {Request.GENERATE: generate, Request.ROLLING: rolling}
        for index, question in enumerate(questions):
            kinds.get(question.task.request, likelihood)[index] = question
        try:
            yield from self._generated(generate)
            yield from self._weighed(likelihood)
            yield from self._rolled(rolling)
        finally:
            self.passes.forget()

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
        requests = self._with_stems(requests, lambda request: request.prompt)
        for index, (ids, complete) in self._checked(requests):
            if complete:
                yield index, self._answer(requests.pop(index), Timed(ids, None))
            else:
                requests[index] = replace(requests[index], begun=ids or ())
        for index, timed in self._run(requests, self.passes.answer, lambda one: one.passes):
            yield index, self._answer(requests[index], timed)

    def _checked(
        self, requests: Mapping[int, GenerationRequest]
    ) -> Iterator[tuple[int, tuple[Ids | None, bool]]]:
        """What the drafts settle: a few of them first, and the rest as long as that pays.

        All are checked before anything is decoded, so that the rows that part from their drafts,
        a few of each batch, are decoded together in full batches.
        """
        drafted = sorted(
            ((index, request) for index, request in requests.items() if request.draft),
            key=lambda item: item[1].read,
        )
        if not drafted:
            return
        worth = self._worth([request for _, request in drafted])
        first = {drafted[at][0] for at in worth.pilot}

        def check(batch: Sequence[GenerationRequest]) -> list[tuple[Ids | None, bool]]:
            return self.passes.check(batch) if worth.pays else [((), False)] * len(batch)

        for piloted, shared in product((True, False), repeat=2):
            part = {
                index: request
                for index, request in drafted
                if (index in first) is piloted and (request.stem > 0) is shared
            }
            for index, checked in self._batcher.run(
                part, lambda one: one.checked, check, family=_family
            ):
                (ids, complete), guess = checked, len(part[index].guess)
                if ids or complete:
                    prompt = part[index].read - guess
                    known = len(ids or ())
                    worth.book(prompt=prompt, guess=guess, known=known, complete=complete)
                yield index, checked

    def _worth(self, drafted: Sequence[GenerationRequest]) -> Worth:
        drafts = sum(len(request.guess) for request in drafted)
        tokens = sum(request.longest for request in drafted)
        return Worth(
            self._limits.device,
            prompts=sum(request.read for request in drafted) - drafts,
            drafts=drafts,
            count=len(drafted),
            rows=max(1, min(len(drafted), self._batcher.budget * len(drafted) // tokens)),
        )

    def _weighed(
        self, questions: Mapping[int, Question]
    ) -> Iterator[tuple[int, Answer | Unanswered]]:
        asked = self.prompts.contexts_and_continuations(
            [(question.sample, _continuations(question)) for question in questions.values()]
        )
        requests: dict[int, LikelihoodRequest] = {}
        for (index, question), (context, rest) in zip(questions.items(), asked, strict=True):
            greedy = scorer_class(question.task.scorer).greedy
            request = LikelihoodRequest(context, rest, variant=question.variant, greedy=greedy)
            if not all(rest):
                yield index, Unanswered("the text to score has no token")
            elif unfit := self._unfit(len(request.context), request.longest):
                yield index, unfit
            else:
                requests[index] = request
        requests = self._with_stems(requests, lambda request: request.context)
        for index, timed in self._run(requests, self.passes.loglikelihoods, one_pass):
            yield index, _judged(questions[index], requests[index], timed)

    def _rolled(
        self, questions: Mapping[int, Question]
    ) -> Iterator[tuple[int, Answer | Unanswered]]:
        requests: dict[int, LikelihoodRequest] = {}
        owners: list[int] = []
        counts: dict[int, int] = {}
        for index, question in questions.items():
            first, tokens = self.prompts.whole(question.sample.expected)
            if not tokens:
                yield index, Unanswered("its text has no token")
            counts[index] = len(tokens)
            for context, rest in windows(tokens, first, self._limits.context or LENGTH):
                requests[len(owners)] = LikelihoodRequest(
                    context, (rest,), variant=question.variant
                )
                owners.append(index)
        of_each, parts = Counter(owners), defaultdict[int, list[Timed[_Weighed]]](list)
        for number, timed in self._run(requests, self.passes.loglikelihoods, one_pass):
            index = owners[number]
            parts[index].append(timed)
            if len(parts[index]) == of_each[index]:
                yield index, _whole(questions[index], counts[index], parts.pop(index))

    def _with_stems(
        self, requests: dict[int, _Request], text: Callable[[_Request], Ids]
    ) -> dict[int, _Request]:
        """The requests, each with the stem that is worth reading once for all that share it: those
        of its own variant, whose keys and values they are."""
        found = dict(requests)
        by_variant: dict[int, list[int]] = {}
        for index, request in requests.items():
            by_variant.setdefault(request.variant, []).append(index)
        for indices in by_variant.values():
            stems = stem_lengths([text(requests[index]) for index in indices])
            for index, stem in zip(indices, stems, strict=True):
                if stem and _PADDED * requests[index].longest <= self._limits.holes:
                    found[index] = replace(requests[index], stem=stem)
        return found

    def _run(
        self,
        requests: Mapping[int, _Request],
        compute: Callable[[Sequence[_Request]], Sequence[_Result]],
        passes: Callable[[_Request], int],
    ) -> Iterator[tuple[int, Timed[_Result]]]:
        """Answers requests in batches, those with stems, or in trees, apart from those without.

        A sample's seconds are its share of its batch's, by the positions that it takes of it.
        """

        def timed(batch: Sequence[_Request]) -> list[Timed[_Result]]:
            started = time.perf_counter()
            results = compute(batch)
            each = (time.perf_counter() - started) / sum(map(self._held, batch))
            return [
                Timed(result, each * self._held(request))
                for request, result in zip(batch, results, strict=True)
            ]

        ways = {index: self._way(request) for index, request in requests.items()}
        for way in sorted(set(ways.values()), reverse=True):
            part = {index: request for index, request in requests.items() if ways[index] == way}
            yield from self._batcher.run(part, self._held, timed, family=_family, passes=passes)

    def _held(self, request: GenerationRequest | LikelihoodRequest) -> int:
        """How many positions a request takes of its batch."""
        if isinstance(request, GenerationRequest):
            return request.longest
        return request.held(self._limits.trees)

    def _way(self, request: GenerationRequest | LikelihoodRequest) -> tuple[bool, bool]:
        """What the requests of a batch have in common: a stem or none, a tree or none."""
        treed = isinstance(request, LikelihoodRequest) and request.longest <= self._limits.trees
        return request.stem > 0, treed

    def _request(self, question: Question, prompt: Ids) -> GenerationRequest:
        settings = question.task.generation
        limit = settings.max_new_tokens
        if self._limits.context:
            limit = max(1, min(limit, self._limits.context - len(prompt)))
        noise = noise_key(settings.seed, question.task.name, question.sample.id)
        choice = Choice(settings.temperature, settings.top_p, noise)
        # A draft would make the time that is measured the time of reading it.
        drafted = question.draft is not None and not scorer_class(question.task.scorer).timed
        draft = question.draft() if question.draft and drafted else ()
        return GenerationRequest(
            prompt,
            limit,
            settings.stop,
            choice,
            draft=draft,
            variant=question.variant,
            ends=self.prompts.ends(settings.stop),
        )

    def _unfit(self, prompt: int, longest: int) -> Unanswered | None:
        if not prompt:
            return Unanswered("the prompt has no token")
        if self._limits.context and longest > self._limits.context:
            return Unanswered(
                f"{longest} tokens, but the model has {self._limits.context} positions"
            )
        return None

    def _answer(self, request: GenerationRequest, timed: Timed[Ids | None]) -> Answer | Unanswered:
        ids = timed.value
        if ids is None:
            return Unanswered("its logits are not finite")
        text = cut_at_stop(self.prompts.text(ids), request.stop)
        return Answer(text=text, token_ids=ids, seconds=timed.seconds)


def _family(request: GenerationRequest | LikelihoodRequest) -> tuple[int, Ids] | None:
    """Whose stem is read once."""
    if not request.stem:
        return None
    text = request.prompt if isinstance(request, GenerationRequest) else request.context
    return request.variant, text[: request.stem]


def _continuations(question: Question) -> tuple[str, ...]:
    if question.task.request is Request.CHOICES:
        return question.sample.choices
    return (question.sample.expected,)


def _judged(
    question: Question, request: LikelihoodRequest, timed: Timed[_Weighed]
) -> Answer | Unanswered:
    values = tuple(likelihood.value for likelihood in timed.value)
    if not all(map(math.isfinite, values)):
        return Unanswered("its log-likelihood is not finite")
    texts = _continuations(question)
    return Answer(
        text=texts[values.index(max(values))] if len(texts) > 1 else "",
        loglikelihoods=values,
        token_counts=tuple(map(len, request.continuations)),
        byte_counts=tuple(len(text.encode()) for text in texts),
        greedy=tuple(each.greedy for each in timed.value if each.greedy is not None),
        seconds=timed.seconds,
    )


def _whole(
    question: Question, tokens: int, parts: Sequence[Timed[_Weighed]]
) -> Answer | Unanswered:
    """A text of so many tokens, from its windows."""
    weighed = [likelihood for timed in parts for likelihood in timed.value]
    value = math.fsum(likelihood.value for likelihood in weighed)
    if not math.isfinite(value):
        return Unanswered("its log-likelihood is not finite")
    return Answer(
        loglikelihoods=(value,),
        token_counts=(tokens,),
        byte_counts=(len(question.sample.expected.encode()),),
        seconds=sum(timed.seconds or 0.0 for timed in parts),
    )
