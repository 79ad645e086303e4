"""Samples as token ids: chat templates, the beginning-of-text token, and where an answer starts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from adapterbot.errors import InputError
from adapterbot.eval.answers import Sample
from adapterbot.eval.chat import Chat, render_chats
from adapterbot.eval.questions import Ids

# Characters of texts that are remembered with their tokens: those of a few thousand samples.
_REMEMBERED = 4 * 1024 * 1024


class Prompts:
    """A tokenizer as the engine uses it."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._tokenizer = tokenizer
        self._name = name
        self._chats: dict[Chat, str] = {}
        self._known: dict[str, Ids] = {}
        self._size = 0

    @cached_property
    def prefix(self) -> Ids:
        """The special tokens that the tokenizer itself puts before a text, mostly one or none."""
        (plain,) = self._ids(["a"])
        special = tuple(self._tokenizer("a")["input_ids"])
        for start in range(len(special) - len(plain) + 1):
            if special[start : start + len(plain)] == plain:
                return special[:start]
        return ()

    def render(self, samples: Sequence[Sample]) -> None:
        """Has the chats among the samples written by the template, all at once.

        Raises:
            InputError: there is no template, or it fails.
        """
        chats = dict.fromkeys(sample.messages for sample in samples if sample.messages is not None)
        new = [chat for chat in chats if chat not in self._chats]
        if new and not self._tokenizer.chat_template:
            raise InputError(
                "has no chat template, which samples with `messages` need",
                file=self._name,
                field="chat_template",
                fix="add one to the base's tokenizer, or write `prompt` instead of `messages`",
            )
        texts = render_chats(self._written, new, file=self._name)
        self._chats.update(zip(new, texts, strict=True))

    def prompts(self, samples: Sequence[Sample]) -> list[Ids]:
        """What the model reads before it answers each sample.

        Raises:
            InputError: a sample is a chat and the tokenizer has no chat template.
        """
        self.render(samples)
        texts = [self._context(sample) for sample in samples]
        ids = self._ids([text for text, _ in texts])
        return [prefix + own for (_, prefix), own in zip(texts, ids, strict=True)]

    def contexts_and_continuations(
        self, asked: Sequence[tuple[Sample, Sequence[str]]]
    ) -> list[tuple[Ids, tuple[Ids, ...]]]:
        """For each sample what the model reads, and the continuations whose likelihood is asked.

        A continuation gets the tokens that it has in running text, behind the context; spaces at
        the context's end go with it, as lm-eval does (`TemplateLM._encode_pair`). With an empty
        context the first token is given by the prefix or, without one, by the end-of-text token.

        Raises:
            InputError: as `prompts`.
        """
        self.render([sample for sample, _ in asked])
        contexts = [self._context(sample) for sample, _ in asked]
        ids = iter(
            self._ids(
                [
                    part
                    for (text, _), (_, continuations) in zip(contexts, asked, strict=True)
                    for part in (text.rstrip(), *(text + rest for rest in continuations))
                ]
            )
        )
        return [
            self._parted(text, prefix, continuations, next(ids), [next(ids) for _ in continuations])
            for (text, prefix), (_, continuations) in zip(contexts, asked, strict=True)
        ]

    def _parted(
        self, text: str, prefix: Ids, continuations: Sequence[str], bare: Ids, whole: Sequence[Ids]
    ) -> tuple[Ids, tuple[Ids, ...]]:
        """Where each of the continuations starts in `whole`, the tokens of both together."""
        spaces = text[len(text.rstrip()) :]
        # A continuation that melts into the context's last token is kept apart from it.
        own = tuple(
            ids[len(bare) :] or self._ids([spaces + continuation])[0]
            for ids, continuation in zip(whole, continuations, strict=True)
        )
        if not (prefix or bare):
            end = self._tokenizer.eos_token_id
            prefix = (end,) if end is not None else ()
        return prefix + bare, own

    def whole(self, text: str) -> tuple[int, Ids]:
        """The token that goes before a whole text, and the text's own, as lm-eval has them: what
        the tokenizer puts before a text by itself is one more of them.

        Raises:
            InputError: the tokenizer has neither a first nor a last token.
        """
        first = self._tokenizer.bos_token_id
        if first is None:
            first = self._tokenizer.eos_token_id
        if first is None:
            raise InputError(
                "has neither `bos_token` nor `eos_token`, and whole texts need one before them",
                file=self._name,
                fix="name one in the base's tokenizer_config.json",
            )
        bare = text.startswith(self._tokenizer.decode([first]))
        ids = self._tokenizer(text, add_special_tokens=not bare)["input_ids"]
        return int(first), tuple(ids)

    def answer(self, text: str) -> Ids:
        """An answer as this tokenizer would write it."""
        return self._ids([text])[0]

    def ends(self, stop: Sequence[str]) -> frozenset[int]:
        """The special tokens among stop strings, such as `<|im_end|>`: no text shows them."""
        ids = [own for own in self._ids(stop) if len(own) == 1 and not self.text(own)]
        return frozenset(own[0] for own in ids)

    def text(self, ids: Ids) -> str:
        """Token ids as text, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _ids(self, texts: Sequence[str]) -> list[Ids]:
        """Each text's tokens. The next adapter is mostly asked the same: they are remembered."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            read = self._tokenizer(new, add_special_tokens=False, return_attention_mask=False)
            self._known.update(zip(new, map(tuple, read["input_ids"]), strict=True))
            self._size += sum(map(len, new))
        found = [self._known[text] for text in texts]
        if self._size > _REMEMBERED:
            self._known.clear()
            self._size = 0
        return found

    def _context(self, sample: Sample) -> tuple[str, Ids]:
        """The text that the model reads, and the special tokens that go before it."""
        if sample.messages is None:
            return sample.prompt, self.prefix
        if sample.messages not in self._chats:
            self.render([sample])
        # The template writes the beginning-of-text token itself.
        return self._chats[sample.messages], ()

    def _written(self, chat: Chat) -> str:
        messages = [message.model_dump() for message in chat]
        return str(
            self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        )
