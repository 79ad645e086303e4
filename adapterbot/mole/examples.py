"""Training rows as token ids: what is read, and the answer that is learnt. Torch-free.

Both halves come from the tokenizer's chat template, the prompt exactly as serving renders it, so
that the gate is trained on what it will see.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from adapterbot.conversations import Message
from adapterbot.errors import InputError


@dataclass(frozen=True)
class Example:
    """One row: the tokens that are read, and those of the answer, its end included."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens of both."""
        return len(self.prompt) + len(self.answer)


class TemplateRefusal(InputError):
    """The chat template takes no such conversation: a role that it does not know, or two questions
    in a row."""


def encode(
    tokenizer: Any, messages: Sequence[Message], *, name: str, row: str = "a conversation"
) -> Example:
    """Messages as tokens.

    Args:
        name: of the base model, for errors.
        row: what the messages are, for errors.

    Raises:
        TemplateRefusal: these messages cannot be written.
        InputError: the tokenizer has no chat template, or one that renders a question differently
            once it is answered, so that no token could be said to be the answer's.
    """
    if not tokenizer.chat_template:
        raise InputError(
            "has no chat template, by which rows become text",
            file=name,
            field="chat_template",
            fix="add the one that serving uses to the base's tokenizer",
        )
    try:
        asked = tokenizer.apply_chat_template(
            list(messages[:-1]), tokenize=False, add_generation_prompt=True
        )
        whole = tokenizer.apply_chat_template(list(messages), tokenize=False)
    except Exception as error:  # the template is a program of the model's own
        raise TemplateRefusal(
            f"refuses {row}: {error}",
            file=name,
            field="chat_template",
            fix="write the row as this template takes it, or leave it out",
        ) from error
    if not whole.startswith(asked) or len(whole) == len(asked):
        raise InputError(
            "renders a question differently once it is answered",
            file=name,
            field="chat_template",
            fix="use a template whose answers follow the generation prompt",
        )
    texts = [asked, whole[len(asked) :]]
    prompt, answer = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return Example(tuple(prompt), tuple(answer))


def split(
    examples: Sequence[Example], share: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Training and validation rows, the latter `share` of all, drawn by seed."""
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)  # noqa: S311 no secret
    held_out = set(order[: round(share * len(order))])
    return (
        [example for at, example in enumerate(examples) if at not in held_out],
        [example for at, example in enumerate(examples) if at in held_out],
    )


def batches(count: int, size: int, seed: int, epoch: int) -> Iterator[list[int]]:
    """One epoch's batches as indices: shuffled by seed and epoch, so that a resumed run sees the
    batches that it would have seen."""
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)  # noqa: S311 no secret
    for start in range(0, count, size):
        yield order[start : start + size]
