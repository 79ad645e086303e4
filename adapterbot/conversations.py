"""Training rows as chat messages: Soup's alpaca, ShareGPT and ChatML."""

from __future__ import annotations

from collections.abc import Mapping

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
