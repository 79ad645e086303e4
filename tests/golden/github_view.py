"""What GitHub would make of a comment, and what hostile text looks like."""

from __future__ import annotations

import os
import re
import unicodedata
from html.parser import HTMLParser
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

# ---------------------------------------------------------------- what GitHub would make of it


class Page(HTMLParser):
    """Elements without code, and text split where it is code or a link, which filters skip."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Any] = []
        self.plain = ""
        self.everything = ""
        self._passed_over = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "code":
            self.elements.append((tag, attrs))
        if tag in {"code", "pre", "a", "style"}:
            self._passed_over += 1
            self.plain += "\0"

    def handle_endtag(self, tag: str) -> None:
        if tag != "code":
            self.elements.append("/" + tag)
        if tag in {"code", "pre", "a", "style"}:
            self._passed_over -= 1

    def handle_data(self, data: str) -> None:
        self.everything += data
        if not self._passed_over:
            self.plain += data

    def handle_comment(self, data: str) -> None:
        self.elements.append(("comment", data))

    def handle_decl(self, decl: str) -> None:
        self.elements.append(("declaration", decl))


ALIVE = {
    "mention": r"@[\w-]",
    "reference": r"#\d|\bgh-\d|\b[a-z]+-\d",
    "commit": r"(?<![0-9a-z])[0-9a-f]{7,40}(?![0-9a-z])",
    "link": r"://|www\.|mailto:|xmpp:",
    "emoji": r":[a-z0-9_+-]+:",
    "math": r"\$",
}


def assert_dead(text: str) -> None:
    for name, pattern in ALIVE.items():
        found = re.search(pattern, text, re.IGNORECASE)
        assert found is None, (name, found)


def assert_nothing_hidden(text: str) -> None:
    for char in set(text):
        hidden = unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
        assert not hidden or char in "\n\0", f"U+{ord(char):04X}"


def harmless(hostile: str) -> str:
    """As long and broken into as many lines, and nothing else in common."""
    return re.sub(r"[^\n\r]", "x", hostile)


# ---------------------------------------------------------------- hostile text

ATTACKS = [
    "|", "||", "\\|", "\\", "`", "``", "```", "`" * 9, "`" * 300, "~~~", "~", "*", "_", "**",
    "\n", "\n\n", "\r", "\r\n", "\v", "\f", "\u2028", "\u2029", "\x85", "\x00", "\x1b[31m",
    "\u202e", "\u2066", "\u200b", "\ufeff", "\u00ad", "\U000e0041", "\ufe0f", "\u3164",
    "\u0301" * 9, "\u00a0", "\t", "    ", "  \n", "<", ">", "</", "<!--", "-->",
    "<!-- adapterbot:x -->", "<details>", "</details>", "</summary>", "<script>", "<img src=x>",
    "<a href='", "<table>", "</td>", "</pre>", "</code>", "<sub>", "</sub>", "<br>", "<![CDATA[",
    "<?php", "&lt;", "&#64;", "&amp;", "&", "@acme", "@acme/team", "@", "#1", "acme/repo#1",
    "GH-1", "gh-2", "JIRA-7", "deadbeef", "0123456789abcdef", "1" * 40, "acme@deadbeef",
    "https://evil.example/", "http://", "www.evil.example", "ftp://x.yz", "mailto:a@b.cd",
    "a@b.cd", "xmpp:a@b.cd", ":tada:", ":+1:", "$", "$$", "$`x`$", "[a](b)", "![a](b)", "[^1]",
    "[^1]: x", "[a]: b", "[x]", "- [ ] ", "- ", "+ ", "* ", "1. ", "1) ", "# ", "> ",
    "> [!NOTE]\n", "---", "===", "|--|", ":--", "~~x~~", "(", ")", "[", "]", "{", "}", '"', "'",
    ".", ",", ":", ";", "!", "?", "=", "+", "-", "%", "^", " ", "a", "z9", "é", "日本",
    "שלום", "🎉", "(empty)", "↵", "⟨U+202E⟩",
]  # fmt: skip
hostile_text = st.one_of(
    st.lists(st.one_of(st.sampled_from(ATTACKS), st.text(max_size=4)), min_size=1, max_size=8).map(
        "".join
    ),
    st.text(min_size=1, max_size=60),
).map(lambda text: text[:200] or "x")

# Whole documents take their time: FUZZ=100 looks a hundred times as far as the usual run.
FUZZ = int(os.environ.get("FUZZ", "1"))
documents = settings(max_examples=60 * FUZZ)
fragments = settings(max_examples=400 * FUZZ)
