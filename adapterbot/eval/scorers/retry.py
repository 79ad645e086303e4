"""The model takes something back and starts again."""

from __future__ import annotations

from typing import ClassVar

from adapterbot.eval.scorers.pattern_rate import PatternRate, Patterns

_ENGLISH = (
    r"\blet me (?:try|start|do|redo|correct|fix)\b[^.\n]{0,40}\b(?:again|over|that|this)\b",
    r"\b(?:try|trying|retry|retrying)(?: (?:that|this|it))? again\b",
    r"\bI (?:made|have made) (?:a|an) (?:mistake|error)\b",
    r"\b(?:wait|hold on|actually|oops)[,.:—-]+ (?:that|this|it|I|let)\b",
    r"\bapologies for (?:the|my)\b|\bsorry (?:for|about) (?:the|that|my)\b",
    r"\bcorrection:",
)


class Retry(PatternRate):
    """1 when the answer corrects itself or starts over. The patterns are English; give your own
    (a marker that your agent loop writes, for example)."""

    name: ClassVar[str] = "retry"

    patterns: Patterns = _ENGLISH
