"""One question of a served model: which request a sample becomes, and what the reply means.

Generated text comes from `/chat/completions` where a sample is a chat, else from `/completions`;
log-likelihoods from `/completions` with `echo` and `logprobs`, which vLLM and llama.cpp have and
some others have not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from adapterbot.errors import InputError
from adapterbot.eval.answers import Answer, GenerationSettings, Request, cut_at_stop
from adapterbot.eval.questions import Question, Unanswered, noise_key
from adapterbot.eval.remote.http import NO_SUCH_THING, Client, Refused

_MOST_STOPS = 4  # of OpenAI's own API; what a server is not told is cut off here all the same


class Asking:
    """Asks one server's models."""

    def __init__(self, client: Client, url: str) -> None:
        self._client = client
        self._url = url

    async def answer(self, model: str, question: Question) -> Answer | Unanswered:
        """What the model called `model` there answers.

        Raises:
            InputError: the server lacks what the task needs, or wants another key.
            OurFailure: it stopped answering.
        """
        request = question.task.request
        try:
            if request is Request.GENERATE:
                return await self._written(model, question)
            if request is Request.ROLLING:
                raise self._cannot_weigh("does not read whole texts in windows", question)
            texts = question.sample.choices
            if request is Request.LIKELIHOOD:
                texts = (question.sample.expected,)
            return await self._weighed(model, question, texts)
        except Refused as error:
            if error.status in NO_SUCH_THING:
                raise InputError(
                    f"does not have what the task {question.task.name} needs: {error}",
                    file=self._url,
                    fix="use a server with /completions and /chat/completions, or leave the task "
                    "out of the suite",
                ) from error
            return Unanswered(f"the server refused: {error}")

    async def _written(self, model: str, question: Question) -> Answer | Unanswered:
        settings, sample = question.task.generation, question.sample
        body: dict[str, JsonValue] = {"model": model, **_generation(settings, question)}
        if sample.messages is not None:
            body["messages"] = [message.model_dump() for message in sample.messages]
            reply = await self._client.post("/chat/completions", body)
        else:
            reply = await self._client.post("/completions", {**body, "prompt": sample.prompt})
        try:
            choice = reply["choices"][0]
            text = choice["message"]["content"] if sample.messages is not None else choice["text"]
        except (TypeError, LookupError):
            return Unanswered("the server's reply is no completion")
        if not isinstance(text, str | None):
            return Unanswered("the server's reply holds no text")
        return Answer(text=cut_at_stop(text or "", settings.stop))

    async def _weighed(
        self, model: str, question: Question, texts: Sequence[str]
    ) -> Answer | Unanswered:
        """Log P(text | prompt) of each text.

        As in `eval.prompts`, spaces at the prompt's end go with the text, and a text's tokens are
        those behind as many as the prompt alone has. That count is asked of the server, which alone
        knows its tokenizer and what it puts before a prompt. Of a text without a prompt the first
        token counts only where the server puts one before it.
        """
        prompt = self._readable(question)
        bare = prompt.rstrip()
        begun = await self._count(model, bare) if bare else 0
        values: list[float] = []
        counts: list[int] = []
        greedy: list[bool | None] = []
        for text in texts:
            tokens = await self._echoed(model, prompt + text, question)
            # Nothing goes before the first token of all, so nothing says how likely it was.
            own = [token for token in tokens[begun:] if token.value is not None]
            if not own:
                return Unanswered("its text melts into the prompt's last token")
            values.append(math.fsum(token.value or 0.0 for token in own))
            counts.append(len(own))
            likeliest = [token.likeliest for token in own]
            greedy.append(None if None in likeliest else all(likeliest))
        if not all(map(math.isfinite, values)):
            return Unanswered("its log-likelihood is not finite")
        return Answer(
            text=texts[values.index(max(values))] if len(texts) > 1 else "",
            loglikelihoods=tuple(values),
            token_counts=tuple(counts),
            byte_counts=tuple(len(text.encode()) for text in texts),
            greedy=() if None in greedy else tuple(map(bool, greedy)),
        )

    def _readable(self, question: Question) -> str:
        if question.sample.messages is None:
            return question.sample.prompt
        raise InputError(
            f"cannot weigh the chats of the task {question.task.name}: only it knows its template",
            file=self._url,
            fix="write `prompt` instead of `messages`, or evaluate without --server",
        )

    async def _count(self, model: str, text: str) -> int:
        body: JsonValue = {"model": model, "prompt": text, "max_tokens": 1, "temperature": 0}
        reply = await self._client.post("/completions", body)
        try:
            return int(reply["usage"]["prompt_tokens"])
        except (TypeError, LookupError, ValueError) as error:
            raise self._cannot_weigh("does not count the tokens of a prompt") from error

    async def _echoed(self, model: str, text: str, question: Question) -> list[_Token]:
        """Every token of `text`; one more, of the answer, is cut."""
        body: JsonValue = {
            "model": model,
            "prompt": text,
            "max_tokens": 1,
            "temperature": 0,
            "echo": True,
            "logprobs": 1,
        }
        missing = "does not echo the log-likelihoods of a prompt"
        try:
            reply = await self._client.post("/completions", body)
        except Refused as error:
            if "echo" in str(error) or "logprobs" in str(error):
                raise self._cannot_weigh(missing, question) from error
            raise
        try:
            count = int(reply["usage"]["prompt_tokens"])
            found = reply["choices"][0]["logprobs"]
            tokens = list(found["token_logprobs"])
            best = found.get("top_logprobs")
        except (TypeError, LookupError, ValueError, AttributeError) as error:
            raise self._cannot_weigh(missing, question) from error
        if len(tokens) < count or not all(isinstance(v, int | float | None) for v in tokens):
            raise self._cannot_weigh(missing, question)
        others = best if isinstance(best, list) and len(best) >= count else [None] * count
        return [_Token(*both) for both in zip(tokens[:count], others, strict=False)]

    def _cannot_weigh(self, what: str, question: Question | None = None) -> InputError:
        who = f", which the task {question.task.name} needs" if question else ""
        return InputError(
            f"{what}{who}",
            file=self._url,
            fix="use a server that does (vLLM, llama.cpp), or leave out multiple choice and "
            "perplexity",
        )


@dataclass(frozen=True)
class _Token:
    """Log P of a token, None for the first of all; and, where it is told, of the likeliest ones."""

    value: float | None
    others: JsonValue

    @property
    def likeliest(self) -> bool | None:
        """Whether no token is likelier; None where that is not told."""
        if self.value is None or not isinstance(self.others, dict) or not self.others:
            return None
        known = [other for other in self.others.values() if isinstance(other, int | float)]
        return self.value >= max(known, default=self.value)


def _generation(settings: GenerationSettings, question: Question) -> Mapping[str, Any]:
    body: dict[str, JsonValue] = {
        "max_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
    }
    if settings.stop:
        body["stop"] = list(settings.stop[:_MOST_STOPS])
    if settings.temperature > 0:
        # One seed per sample, the same for both adapters; 31 bits, which every server takes.
        key = noise_key(settings.seed, question.task.name, question.sample.id)
        body |= {"top_p": settings.top_p, "seed": key & 0x7FFFFFFF}
    return body
