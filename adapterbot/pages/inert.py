"""Untrusted strings made inert: Markdown that GitHub shows as text or code and as nothing else.

Three things read a comment, one after the other, and each needs its own answer.

1. cmark-gfm parses it. In running text every active ASCII character becomes a numeric character
   reference; in code the delimiter is chosen so that the content cannot close it.
2. The sanitiser keeps a list of HTML elements, `<details>` among them. None gets that far.
3. GitHub's own filters then walk the *decoded* text nodes and link mentions, references, commit
   SHAs and e-mail addresses, and replace emoji and math. Character references do not help there
   (`&#64;user` is a mention), but all of these filters pass over code. So a word that could be
   alive is shown as code, decided by what looks harmless, not by a list of what is dangerous.

Nothing is removed: what cannot be seen (bidi controls, zero-width, escapes) is spelled out as
`⟨U+202E⟩`. Everything is clipped before anything else, so that cost does not grow with the input.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

EMPTY = "(empty)"
WRAP_AT = 100


class Inert(str):
    """Markdown that is safe to print as it is: our own words, or a string that was escaped."""

    __slots__ = ()


NONE = Inert("–")


# ---------------------------------------------------------------- what cannot be seen

_NOT_PLAIN = re.compile(r"[^\x20-\x7e]")
_NAMED = {"\n": "↵", "\t": "⇥", "\r": "␍"}
# Default-ignorable or blank, though Unicode files them under letters, marks or symbols.
_BLANK = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2065, 0x2800, 0x3164, 0xFFA0} | {
    *range(0x180B, 0x1810),
    *range(0xFE00, 0xFE0E),
    *range(0xFFF0, 0xFFF9),
}
# Two emoji selectors are ordinary after a symbol and a hiding place anywhere else.
_STRAY_SELECTOR = re.compile("(?<![\u2000-\u3300\U0001f000-\U0001faff])[\ufe0e\ufe0f]")
_STACKED_MARKS = re.compile(
    "([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{4})"
    "([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+)"
)


def _spelled(char: str) -> str:
    return f"⟨U+{ord(char):04X}⟩"


@lru_cache(maxsize=4096)
def _shown(char: str) -> str:
    """One character outside printable ASCII as a reader can see it."""
    if char in _NAMED:
        return _NAMED[char]
    point = ord(char)
    hidden = (
        unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
        or point in _BLANK
        or 0xE0000 <= point <= 0xE0FFF
    )
    return _spelled(char) if hidden else char


@lru_cache(maxsize=4096)
def _shown_in_code(char: str) -> str:
    """The same, and spaces that only look like spaces are told apart (U+3000 shows its width)."""
    odd_space = unicodedata.category(char) == "Zs" and char not in " \u3000"
    return _spelled(char) if odd_space else _shown(char)


@lru_cache(maxsize=1024)
def visible(value: str, *, in_code: bool = False) -> str:
    """`value` on one line with nothing hidden in it. Lone surrogates are spelled out as well."""
    one_line = value.replace("\r\n", "\n")
    show = _shown_in_code if in_code else _shown
    seen = _NOT_PLAIN.sub(lambda found: show(found[0]), one_line)
    seen = _STRAY_SELECTOR.sub(lambda found: _spelled(found[0]), seen)
    # A tower of combining marks is drawn over the lines above and below it.
    return _STACKED_MARKS.sub(lambda found: f"{found[1]}⟨{len(found[2])} more marks⟩", seen)


def visible_lines(value: str) -> str:
    """As `visible`, with the line ends kept: for a place that shows lines as lines."""
    return "\n".join(map(visible, value.replace("\r\n", "\n").split("\n")))


def clip(value: str, limit: int) -> str:
    """At most `limit` characters, the last one an ellipsis when something was cut."""
    return value if len(value) <= limit else value[: limit - 1] + "…"


# ---------------------------------------------------------------- code

# cmark gives up on a code span's delimiter beyond 80 backticks; long before that it is unreadable.
_LONGEST_DELIMITER = 8


def _span(shown: str) -> str:
    """A code span around one visible line, with the shortest delimiter that is no run inside it."""
    runs = {len(run) for run in re.findall("`+", shown)}
    ticks = next(n for n in range(1, len(runs) + 2) if n not in runs)
    if ticks > _LONGEST_DELIMITER:
        shown, ticks = shown.replace("`", _spelled("`")), 1
    # A space on either side is stripped again, and keeps a backtick off the delimiter.
    edges = shown[0] + shown[-1]
    pad = " " if "`" in edges or " " in edges else ""
    return f"{'`' * ticks}{pad}{shown}{pad}{'`' * ticks}"


def code(value: object, limit: int = 300) -> Inert:
    """A code span for running text. In a table use `cell`."""
    if value is None:
        return NONE
    shown = visible(clip(str(value), limit), in_code=True)
    if not shown.strip(" "):
        shown = shown.replace(" ", "␣")
    return Inert(_span(shown) if shown else EMPTY)


def cell(value: object, limit: int = 300) -> Inert:
    r"""A code span for a table cell.

    Rows are split before spans are parsed, and `\|` is turned into `|` on the way, in code as
    well. The character before the pipe is all that counts, so a backslash that stands there
    already needs no doubling.
    """
    return Inert(code(value, limit).replace("|", r"\|"))


# ---------------------------------------------------------------- running text

# Punctuation around a word stays outside of its code span.
_OPENING = "([{\"'“‘"
_CLOSING = ")]}\"'”’.,;:!?"
# What the writer quoted stays together; it must stand alone, for two spans that touch are one.
_QUOTED = re.compile("`([^`|]+)`")
_PARTS = re.compile(
    rf"(\s+|\|+|(?<!\S)[{re.escape(_OPENING)}]*{_QUOTED.pattern.replace('(', '(?:')}"
    rf"[{re.escape(_CLOSING)}]*(?!\S))"
)
# A word is shown as text when nothing in it can start a mention, reference, link, emoji or math.
_HARMLESS = re.compile(r"[^@#$:_`\\]*")
_ALIVE = re.compile(
    r"www|[0-9a-f]{7}"  # autolinks; commit SHAs, which GitHub links from seven digits on
    r"|[a-z]-[0-9]"  # GH-1, and the JIRA-1 that repositories configure
    r"|\w\w\.[a-z]{2}",  # host names; file names look right as code, too
    re.IGNORECASE,
)
# What is left to neutralise in a harmless word; `@#$:_` and the like never reach this point,
# except for a colon at its end, which is only a colon.
_ACTIVE = re.compile(
    r"(?<![A-Za-z0-9])[-+=]|[-+=](?![A-Za-z0-9])"  # list bullets, rules, setext underlines
    r"|[&*<>\[\]^{|}~]"
)
_ORDERED_LIST = re.compile(r"\A([0-9]+)([.)])")


def _reference(found: re.Match[str]) -> str:
    return f"&#{ord(found[0])};"


def _word(token: str) -> str:
    opened = token.lstrip(_OPENING)
    core = opened.rstrip(_CLOSING)
    if not core or (_HARMLESS.fullmatch(core) and not _ALIVE.search(core)):
        return _ACTIVE.sub(_reference, token)
    before = token[: len(token) - len(opened)]
    after = opened[len(core) :]
    quoted = _QUOTED.fullmatch(core)
    span = _span(quoted[1] if quoted else core)
    return _ACTIVE.sub(_reference, before) + span + _ACTIVE.sub(_reference, after)


def text(value: object, limit: int = 600) -> Inert:
    """Running text, also in a table cell: words as words, and as code what could be alive."""
    return _text(clip(str(value), limit))


# A budget is met by rendering again with less, so that the same strings come by many times.
@lru_cache(maxsize=4096)
def _text(value: str) -> Inert:
    shown = visible(value).strip()
    if not shown:
        return Inert(EMPTY)
    parts = (" " if part.isspace() else _word(part) for part in _PARTS.split(shown) if part)
    return Inert(_ORDERED_LIST.sub(lambda found: f"{found[1]}&#{ord(found[2])};", "".join(parts)))


# ---------------------------------------------------------------- where there is no code

_SUBJECT = 200
_FULL_WIDTH = {point: point - 0x20 + 0xFF00 for point in range(0x21, 0x7F)}
# What GitHub links in a commit message or closes an issue by; the hyphen is that of GH-1.
_LINKED = re.compile(
    r"[@#]|(?<![0-9a-z])[0-9a-f]{7,64}(?![0-9a-z])|(?<=www)\.|:(?=//)|(?<=[a-z])-(?=[0-9])",
    re.IGNORECASE,
)


def plain(value: str) -> str:
    """One visible line for a commit message, where GitHub links words and nothing quotes them.

    What would be linked is written in full-width forms, which read the same and link nothing.
    """
    shown = " ".join(visible(clip(value, _SUBJECT)).split())
    return _LINKED.sub(lambda found: found[0].translate(_FULL_WIDTH), shown)


# ---------------------------------------------------------------- blocks

# cmark keeps a fence's length in one byte: 255 backticks are closed by the first 255 of 300.
_LONGEST_FENCE = 60
_RUNS = {mark: re.compile(mark + "+") for mark in "`~"}


def lines(value: str, limit: int) -> list[str]:
    """The visible lines of `value`, wrapped, at most `limit` characters of it."""
    wrapped = list(_lines(value[:limit]))
    if len(value) > limit:
        wrapped.append(f"⟨{len(value) - limit} more characters⟩")
    return wrapped if value else [EMPTY]


@lru_cache(maxsize=1024)
def _lines(value: str) -> tuple[str, ...]:
    wrapped: list[str] = []
    for line in value.replace("\r\n", "\n").split("\n"):
        shown = visible(line, in_code=True)
        wrapped += textwrap.wrap(
            shown, WRAP_AT, replace_whitespace=False, drop_whitespace=False, expand_tabs=False
        ) or [""]
    return tuple(wrapped)


def fenced(content: Iterable[str], info: str = "") -> Inert:
    """A fenced code block around visible lines that none of them can close."""
    body = "\n".join(content)
    longest = {
        mark: max((len(run) for run in runs.findall(body)), default=0)
        for mark, runs in _RUNS.items()
    }
    mark = min(longest, key=lambda each: max(longest[each], 2))
    if longest[mark] >= _LONGEST_FENCE:
        body = re.sub(mark + f"{{{_LONGEST_FENCE},}}", _counted, body)
    fence = mark * min(max(longest[mark] + 1, 3), _LONGEST_FENCE)
    return Inert(f"{fence}{info}\n{body}\n{fence}")


def _counted(run: re.Match[str]) -> str:
    return f"⟨{_spelled(run[0][0])} × {len(run[0])}⟩"


def block(value: str, limit: int = 2000, info: str = "") -> Inert:
    """A text of many lines as a code block; `info` is a literal of ours."""
    return fenced(lines(value, limit), info)


# ---------------------------------------------------------------- links

_URL = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/?#=&%+,@:-]*)?")


def link(url: str, label: str) -> Inert:
    """A link of ours: `label` is a literal, `url` comes from the trusted side of the seam.

    An address with anything unusual in it is not linked; the label stands as it is.
    """
    return Inert(f"[{label}](<{url}>)" if _URL.fullmatch(url) else label)
