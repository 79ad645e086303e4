"""Samples as token ids: chat templates, the beginning-of-text token, and where an answer starts."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from adapterbot.errors import InputError
from adapterbot.eval.answers import Sample

Ids = tuple[int, ...]


class Prompts:
    """A tokenizer as the engine uses it."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._tokenizer = tokenizer
        self._name = name

    @cached_property
    def prefix(self) -> Ids:
        """The special tokens that the tokenizer itself puts before a text, mostly one or none."""
        plain = self._ids("a")
        special = tuple(self._tokenizer("a")["input_ids"])
        for start in range(len(special) - len(plain) + 1):
            if special[start : start + len(plain)] == plain:
                return special[:start]
        return ()

    def prompt(self, sample: Sample) -> Ids:
        """What the model reads before it answers `sample`.

        Raises:
            InputError: the sample is a chat and the tokenizer has no chat template.
        """
        if sample.messages is None:
            return self.prefix + self._ids(sample.prompt)
        return self._ids(self._chat(sample))

    def pair(self, sample: Sample, continuation: str) -> tuple[Ids, Ids]:
        """Context and continuation whose likelihood is asked.

        The continuation gets the tokens that it has in running text, behind the context; spaces at
        the context's end go with it, as lm-eval does (`TemplateLM._encode_pair`). With an empty
        context the first token is given by the prefix or, without one, by the end-of-text token.

        Raises:
            InputError: as `prompt`.
        """
        if sample.messages is None:
            text, prefix = sample.prompt, self.prefix
        else:
            text, prefix = self._chat(sample), ()
        bare = text.rstrip()
        context = self._ids(bare)
        asked = self._ids(text + continuation)[len(context) :]
        if not asked:
            # The continuation melted into the context's last token: keep the two apart.
            asked = self._ids(text[len(bare) :] + continuation)
        if not (prefix or context):
            end = self._tokenizer.eos_token_id
            prefix = (end,) if end is not None else ()
        return prefix + context, asked

    def draft(self, text: str) -> Ids:
        """Another adapter's answer as this tokenizer would write it."""
        return self._ids(text)

    def text(self, ids: Ids) -> str:
        """Token ids as text, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _ids(self, text: str) -> Ids:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _chat(self, sample: Sample) -> str:
        if not self._tokenizer.chat_template:
            raise InputError(
                "has no chat template, which samples with `messages` need",
                file=self._name,
                field="chat_template",
                fix="add one to the base's tokenizer, or write `prompt` instead of `messages`",
            )
        messages = [message.model_dump() for message in sample.messages or ()]
        # The template writes the beginning-of-text token itself.
        return str(
            self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        )
