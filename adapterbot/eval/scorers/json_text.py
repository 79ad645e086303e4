"""The JSON in a model's answer."""

from __future__ import annotations

from pydantic import JsonValue

from adapterbot.files.strict_json import parse_json

_FENCE = "```"
_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


def json_of(text: str, *, extract: bool) -> JsonValue:
    """The answer as JSON; `extract` also takes the last `<tool_call>` or Markdown fence in it.

    Raises:
        ValueError: there is none.
    """
    try:
        return parse_json(text.strip())
    except ValueError:
        if not extract:
            raise
    inner = _tagged(text) or _fenced(text)
    if inner is None:
        raise ValueError("there is no JSON in it")
    return parse_json(inner.strip())


def _tagged(text: str) -> str | None:
    end = text.rfind(_CLOSE)
    start = text.rfind(_OPEN, 0, end) if end >= 0 else -1
    return text[start + len(_OPEN) : end] if start >= 0 else None


def _fenced(text: str) -> str | None:
    """The last fenced block that closes, without its info string."""
    parts = text.split(_FENCE)
    # Odd parts lie inside a fence; an even number of parts means that the last one never closes.
    last = len(parts) - 2 if len(parts) % 2 else len(parts) - 3
    if last < 1:
        return None
    info, _, body = parts[last].partition("\n")
    return body if info.strip().lower() in ("", "json") else None
