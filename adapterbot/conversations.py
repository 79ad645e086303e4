"""Training rows as chat messages (Soup's alpaca, ShareGPT and ChatML), and these as token ids: what
is read, and the answer that is learnt.

Both halves come from the tokenizer's chat template, the prompt exactly as serving renders it, so
that what is trained is what will be seen. Torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapterbot.errors import InputError

_SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
Message = dict[str, str]


def messages_of(row: Mapping[str, object], *, file: str, line: int) -> list[Message]:
    """A row as chat messages that end with the assistant's.

    Raises:
        InputError: it is in none of the three formats, or nothing in it is to be learnt.
    """
    found = _alpaca(row) or _chat(row.get("messages"), "role", "content") or _sharegpt(row)
    if not found or found[-1]["role"] != "assistant" or len(found) == 1:
        raise InputError(
            "holds no question with an assistant's answer",
            file=file,
            field=f"line {line}",
            fix="write instruction and output, or messages that end with the assistant's",
        )
    return found


def _alpaca(row: Mapping[str, object]) -> list[Message]:
    instruction, answer = row.get("instruction"), row.get("output")
    if not isinstance(instruction, str) or not isinstance(answer, str):
        return []
    given = row.get("input")
    text = f"{instruction}\n{given}" if isinstance(given, str) and given else instruction
    found = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
    system = row.get("system")
    if isinstance(system, str) and system:
        found.insert(0, {"role": "system", "content": system})
    return found


def _sharegpt(row: Mapping[str, object]) -> list[Message]:
    found = _chat(row.get("conversations"), "from", "value")
    if any(message["role"] not in _SHAREGPT_ROLES for message in found):
        return []
    return [{**message, "role": _SHAREGPT_ROLES[message["role"]]} for message in found]


def _chat(turns: object, role: str, content: str) -> list[Message]:
    if not isinstance(turns, list):
        return []
    found = []
    for turn in turns:
        if not isinstance(turn, dict):
            return []
        who, what = turn.get(role), turn.get(content)
        if not isinstance(who, str) or not isinstance(what, str):
            return []
        found.append({"role": who, "content": what})
    return found


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
