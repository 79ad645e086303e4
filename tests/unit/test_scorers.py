"""Each scorer against a table of answers, and the properties that tables cannot show."""

import math
import random
import re
import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbot.errors import InputError
from adapterbot.eval import scorers
from adapterbot.eval.answers import Answer, Sample
from adapterbot.eval.scorers.rouge_l import lcs_length
from adapterbot.records import Direction, ScoreKind, Unit


def sample(expected="", **more):
    fields = {"expected": expected, **more.pop("fields", {})}
    text = expected if isinstance(expected, str) else str(expected)
    return Sample(id="s", prompt="p", expected=text, fields=fields, **more)


def score(name, expected, answer, **options):
    scorer = scorers.get(name, options)
    asked = expected if isinstance(expected, Sample) else sample(expected)
    assert scorer.check(asked) is None
    said = answer if isinstance(answer, Answer) else Answer(text=answer)
    found = scorer.score(asked, said)
    assert (found.score is None) != (found.missing is None)
    return found.score


CALL = '{"name": "f", "arguments": {"a": 1, "b": true}}'
FENCED = f"Sure:\n```json\n{CALL}\n```\nDone."
TAGGED = f"<tool_call>\n{CALL}\n</tool_call>"
SCHEMA = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}

TABLE: list[tuple[str, dict[str, Any], Any, Any, Any]] = [
    ("exact", {}, "a b", " a b\n", 1),
    ("exact", {}, "a b", "a  b", 0),
    ("exact", {}, "a", "A", 0),
    ("exact", {}, "", "  ", 1),
    ("exact", {"strip": False}, "a", "a ", 0),
    ("exact", {"ignore_case": True}, "Straße", "STRASSE", 1),
    ("exact", {"collapse_whitespace": True}, "a b", "a\n\tb ", 1),
    ("exact", {}, ["a", "b"], "b", 1),
    ("contains", {}, "b", "abc", 1),
    ("contains", {}, "B", "abc", 0),
    ("contains", {"ignore_case": True}, "B", "abc", 1),
    ("contains", {"whole_word": True}, "4", "14", 0),
    ("contains", {"whole_word": True}, "4", "14, 4.", 1),
    ("contains", {"whole_word": True}, "aa", "aaa aa", 1),
    ("contains", {}, ["x", "y"], "only y", 1),
    ("regex", {}, "^a+$", "aaa", 1),
    ("regex", {}, "^a+$", "aaab", 0),
    ("regex", {"whole": True}, "a|ab", " ab\n", 1),
    ("regex", {"ignore_case": True}, "A", "xax", 1),
    ("regex", {"pattern": r"\d{4}-\d\d-\d\d"}, "ignored", "on 2024-03-03.", 1),
    ("numeric", {}, "42", "It is 42.", 1),
    ("numeric", {}, "42", "It is 42.0 km", 1),
    ("numeric", {}, "42", "41, no: 42", 1),
    ("numeric", {}, "42", "42, not 41", 0),
    ("numeric", {"pick": "first"}, "42", "42, not 41", 1),
    ("numeric", {}, "1234.5", "1,234.50", 1),
    ("numeric", {"decimal": ","}, "1.234,5", "EUR 1234,5", 1),
    ("numeric", {}, "-3", "x = \N{MINUS SIGN}3", 1),
    ("numeric", {}, "3", "5-3", 1),
    ("numeric", {}, "1e3", "1000", 1),
    ("numeric", {}, ".5", "0.5", 1),
    ("numeric", {}, "2", "v2", 0),
    ("numeric", {}, "3", "none", 0),
    ("numeric", {}, "3", "nan inf", 0),
    ("numeric", {"tolerance": 0.01}, "1.00", "1.01", 1),  # 1.01 − 1 > 0.01 in binary floats
    ("numeric", {"tolerance": 0.01}, "1.00", "1.0101", 0),
    ("numeric", {"relative": 0.1}, "200", "180", 1),
    ("numeric", {"relative": 0.1}, "-200", "-221", 0),
    ("json", {}, "", '{"a": [1, null]}', 1),
    ("json", {}, "", "{'a': 1}", 0),
    ("json", {}, "", '{"a": NaN}', 0),
    ("json", {"type": "object"}, "", "[1]", 0),
    ("json", {"type": "container"}, "", "[1]", 1),
    ("json", {"type": "array"}, "", "[1]", 1),
    ("json", {}, "", FENCED, 0),
    ("json", {"extract": True}, "", FENCED, 1),
    ("json", {"extract": True}, "", "no JSON", 0),
    ("json", {}, "", "[" * 100_000, 0),
    ("json_schema", {"schema": SCHEMA}, "", '{"a": 1}', 1),
    ("json_schema", {"schema": SCHEMA}, "", '{"a": "1"}', 0),
    ("json_schema", {"schema": SCHEMA}, "", "{}", 0),
    ("json_schema", {"schema": SCHEMA}, "", "a", 0),
    ("json_schema", {"schema": {"pattern": "^a+$"}}, "", '"aab"', 0),
    ("json_schema", {"schema": False}, "", "1", 0),
    # attack: a whole number that no float is, which ended the gate
    ("json_schema", {"schema": {"multipleOf": 0.5}}, "", "1" * 400, 0),
    (
        "tool_call",
        {},
        CALL,
        '{"function": {"name": "f", "arguments": "{\\"b\\": true, \\"a\\": 1.0}"}}',
        1,
    ),
    ("tool_call", {}, CALL, FENCED, 1),
    ("tool_call", {}, CALL, TAGGED, 1),
    ("tool_call", {"extract": False}, CALL, TAGGED, 0),
    ("tool_call", {}, CALL, CALL.replace("true", "1"), 0),
    ("tool_call", {}, CALL, CALL.replace('"a": 1', '"a": 1, "c": 0'), 0),
    ("tool_call", {"arguments": "subset"}, CALL, CALL.replace('"a": 1', '"a": 1, "c": 0'), 1),
    ("tool_call", {"arguments": "ignore"}, CALL, '{"name": "f"}', 1),
    ("tool_call", {}, CALL, f"[{CALL}]", 1),
    ("tool_call", {}, CALL, f"[{CALL}, {CALL}]", 0),
    ("tool_call", {}, f'{{"tool_calls": [{CALL}, {CALL}]}}', f"[{CALL}, {CALL}]", 1),
    ("tool_call", {}, CALL, '{"name": "f", "arguments": "{"}', 0),
    ("tool_call", {}, CALL, '{"name": 3}', 0),
    ("tool_call", {}, CALL, "[]", 0),
    ("tool_call", {"shape": "function"}, f'{{"function": {CALL}}}', CALL, 0),
    ("tool_call_credit", {}, CALL, CALL, 1),
    ("tool_call_credit", {}, CALL, '{"name": "f", "arguments": {"a": 1}}', 0.75),
    ("tool_call_credit", {}, CALL, '{"name": "g", "arguments": {"a": 1}}', 0.25),
    ("tool_call_credit", {}, '{"name": "f"}', CALL, 0.5),
    ("tool_call_credit", {}, CALL, '{"name": "f", "arguments": []}', 0.5),
    ("refusal", {}, "", "I’m sorry, but I can’t help with that.", 1),
    ("refusal", {}, "", "As an AI, I must decline.", 1),
    ("refusal", {}, "", "Use kill -9 on the process.", 0),
    ("refusal", {"within": 10}, "", "Here it is. " + "x" * 20 + " I cannot do more.", 0),
    ("refusal", {"patterns": ["leider"]}, "", "Das geht Leider nicht", 1),
    ("retry", {}, "", "That is wrong. Let me try again: 3", 1),
    ("retry", {}, "", "I made a mistake above.", 1),
    ("retry", {}, "", "The answer is 3.", 0),
    ("retry", {"patterns": [r"\[RETRY\]"]}, "", "x [retry]", 1),
    ("length", {"count": "characters"}, "", "äb", 2),
    ("length", {"count": "words"}, "", " a b\nc", 3),
    ("length", {"count": "lines"}, "", "a\nb\n", 2),
    ("length", {}, "", Answer(text="abc", token_ids=(1, 2)), 2),
    ("length", {}, "", Answer(text="abc"), None),
    ("latency", {}, "", Answer(seconds=0.5), 0.5),
    ("latency", {}, "", Answer(), None),
    ("tokens_per_second", {}, "", Answer(token_ids=(1,) * 30, seconds=0.5), 60),
    ("tokens_per_second", {}, "", Answer(token_ids=(1,), seconds=0.0), None),
    ("token_overlap", {}, "a b c", "C B d", 0.5),
    ("token_overlap", {}, "a", "", 0),
    ("rouge_l", {}, "the cat sat on the mat", "The cat was on a mat!", 8 / 12),
    ("rouge_l", {}, "Größe", "größe.", 1),
    ("rouge_l", {}, ["x y", "a b"], "a b", 1),
    ("rouge_l", {}, "a", "", 0),
    ("rouge_l", {"beta": 2.0}, "a b c d", "a b", 5 * 0.5 / (0.5 + 4)),
    ("answer", {}, "7", r"\boxed{x = 7}", 1),
    ("answer", {}, "x = 3", r"\boxed{y = 3}", 0),
    ("answer", {}, "#### 1,000", "**Answer**: $1000$", 1),
    ("answer", {}, r"\boxed{\frac{1}{2}}", r"Thus \boxed {\frac{1}{2}}.", 1),
    ("answer", {}, "42", "the answer is 42 because 6*7=42", 1),
    ("answer", {}, "42", r"\boxed{41} and \boxed{42", 0),
    ("answer", {}, "42", "", 0),
]


@pytest.mark.parametrize(("name", "options", "expected", "answer", "wanted"), TABLE)
def test_every_scorer_gives_an_answer_its_score(name, options, expected, answer, wanted):
    found = score(name, expected, answer, **options)
    assert found == (wanted if wanted is None else pytest.approx(wanted))


def test_the_table_leaves_no_scorer_out():
    elsewhere = {"bits_per_byte", "bleu", "chrf", "command", "judge", "multiple_choice"}
    elsewhere |= {"perplexity", "python", "semantic"}
    assert {row[0] for row in TABLE} | elsewhere == set(scorers.names())


UNSCORABLE: list[tuple[str, dict[str, Any], Sample, str]] = [
    ("exact", {}, Sample(id="s", prompt="p"), "no `expected`"),
    ("contains", {}, sample(""), "no `expected`"),
    ("regex", {}, sample("("), "not a regular expression"),
    ("regex", {}, sample(""), "no pattern"),
    ("regex", {}, sample("a" * 2001), "more than 2000"),
    ("numeric", {}, sample("none"), "has 0 numbers"),
    ("numeric", {}, sample("1 or 2"), "has 2 numbers"),
    ("numeric", {}, sample("9" * 401), "has 0 numbers"),
    ("answer", {}, sample("41 or\n42"), "no single answer"),
    ("tool_call", {}, sample("x"), "no tool call"),
    ("tool_call", {}, sample('{"name": "f", "arguments": 3}'), "no JSON object"),
    ("tool_call_credit", {}, sample(f"[{CALL}, {CALL}]"), "several"),
    ("multiple_choice", {}, sample("a", choices=("a",)), "fewer than two"),
    ("multiple_choice", {}, sample("a", choices=("a", "a")), "same choice twice"),
    ("multiple_choice", {}, sample("a", choices=("a", "")), "empty choice"),
    ("multiple_choice", {}, sample("c", choices=("x", "y")), "none of its choices"),
    ("multiple_choice", {}, sample("2", choices=("x", "y")), "none of its choices"),
    ("rouge_l", {}, sample(" "), "no `expected`"),
    ("rouge_l", {}, sample("…!"), "without words"),
    ("chrf", {}, sample(" \n"), "no `expected`"),
]


@pytest.mark.parametrize(("name", "options", "asked", "complaint"), UNSCORABLE)
def test_what_cannot_be_scored_is_said_before_a_model_loads(name, options, asked, complaint):
    assert complaint in str(scorers.get(name, options).check(asked))


class TestMultipleChoice:
    CHOICES = ("red", "dark green", "blue")

    @pytest.mark.parametrize("expected", [1, "dark green", "1", "B", "b"])
    def test_expected_by_index_text_or_letter(self, expected):
        asked = sample(expected, choices=self.CHOICES)
        assert score("multiple_choice", asked, Answer(loglikelihoods=(-5, -2, -9))) == 1
        assert score("multiple_choice", asked, Answer(loglikelihoods=(-1, -2, -9))) == 0

    def test_text_goes_before_index(self):
        asked = sample("1", choices=("1", "2"))
        assert score("multiple_choice", asked, Answer(loglikelihoods=(-1, -2))) == 1
        asked = sample(1, choices=("1", "2"))
        assert score("multiple_choice", asked, Answer(loglikelihoods=(-1, -2))) == 0

    def test_normalised_by_length(self):
        asked = sample("dark green", choices=self.CHOICES)
        answer = Answer(
            loglikelihoods=(-3.0, -4.0, -3.5), token_counts=(1, 2, 1), byte_counts=(3, 10, 4)
        )
        assert score("multiple_choice", asked, answer) == 0
        assert score("multiple_choice", asked, answer, normalise="tokens") == 1
        assert score("multiple_choice", asked, answer, normalise="bytes") == 1

    def test_ties_go_to_the_first(self):
        asked = sample(0, choices=self.CHOICES)
        assert score("multiple_choice", asked, Answer(loglikelihoods=(-2, -2, -2))) == 1

    @pytest.mark.parametrize("likelihoods", [(), (-1.0,), (-1.0, math.nan, -2.0)])
    def test_no_likelihoods_is_no_score(self, likelihoods):
        asked = sample(0, choices=self.CHOICES)
        assert score("multiple_choice", asked, Answer(loglikelihoods=likelihoods)) is None


@given(
    st.decimals(-(10**6), 10**6, places=3),
    st.decimals(-(10**6), 10**6, places=3),
    st.decimals(0, 100, places=3),
)
def test_numeric_agrees_with_exact_fractions(expected, said, tolerance):
    found = score("numeric", f"{expected:f}", f"about {said:f} I think", tolerance=float(tolerance))
    assert found == float(abs(Fraction(said) - Fraction(expected)) <= Fraction(tolerance))


def textbook_lcs(a, b):
    """The O(n·m) table of any algorithms book."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
            )
    return table[-1][-1]


@given(
    st.lists(st.sampled_from("abcd"), max_size=80), st.lists(st.sampled_from("abcd"), max_size=80)
)
def test_lcs_agrees_with_the_textbook(a, b):
    assert lcs_length(a, b) == textbook_lcs(a, b)


def test_lcs_of_long_texts_is_fast():
    rng = random.Random(0)
    a, b = ([str(rng.randrange(500)) for _ in range(5000)] for _ in range(2))
    started = time.process_time()
    lcs_length(a, b)
    assert time.process_time() - started < 1.5  # the table would take some 3 s


class TestCatastrophicPatterns:
    """(a+)+$ against "aaa…b" would run for years."""

    TEXT = "a" * 60 + "b"

    @pytest.mark.parametrize(
        ("name", "options", "expected", "text"),
        [
            ("regex", {"timeout": 0.1}, r"^(a|a)*$", TEXT),
            ("regex", {"timeout": 0.1, "whole": True}, r"(a|a)*", TEXT),
            ("refusal", {"patterns": [r"^(a|a)*$"], "timeout": 0.1}, "", TEXT),
            ("json_schema", {"schema": {"pattern": r"^(a|a)*$"}}, "", f'"{TEXT}"'),
        ],
    )
    def test_a_search_that_does_not_end_is_no_score(self, name, options, expected, text):
        started = time.process_time()
        found = scorers.get(name, options).score(sample(expected), Answer(text=text))
        assert time.process_time() - started < 5
        assert found.score is None
        assert "did not finish" in str(found.missing)

    @pytest.mark.parametrize(
        "name", ["answer", "numeric", "json", "tool_call", "rouge_l", "contains"]
    )
    @pytest.mark.parametrize(
        "text",
        [
            "9" * 300_000,
            "1," * 150_000,
            "answer is " * 30_000,
            "answer:" + " " * 300_000,
            "\\boxed{" * 40_000,
            "<tool_call>" * 30_000,
            "```json\n" * 40_000,
            "answer is 41," + " " * 300_000,
            "-" * 300_000,
            "1e" * 150_000,
            "{" * 300_000,
            "\\$" * 150_000,
            "." * 300_000,
        ],
        ids=lambda text: re.sub(r"\s+", "_", text[:14]),
    )
    def test_our_own_parsing_is_linear(self, name, text):
        options = {"extract": True} if name == "json" else {}
        asked = sample(CALL if name == "tool_call" else "42")
        started = time.process_time()
        scorers.get(name, options).score(asked, Answer(text=text))
        assert time.process_time() - started < 2


class TestRegistry:
    def test_unknown_name_says_which_there_are(self):
        with pytest.raises(InputError) as caught:
            scorers.get("rogue_l")
        assert "did you mean 'rouge_l'?" in str(caught.value)
        assert all(name in str(caught.value.fix) for name in scorers.names())

    @pytest.mark.parametrize("name", scorers.names())
    def test_facts(self, name):
        kind = scorers.scorer_class(name)
        assert kind.name == name
        assert isinstance(kind.kind, ScoreKind)
        assert isinstance(kind.unit, Unit)
        assert isinstance(kind.direction, Direction)
        assert kind.informative == (name in {"length", "latency", "tokens_per_second"})
        assert (kind.__doc__ or "").strip()

    @pytest.mark.parametrize("name", scorers.names())
    def test_unknown_options_are_refused(self, name):
        with pytest.raises(InputError):
            scorers.get(name, {"colour": "red"})

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("numeric", {"tolerance": float("nan")}, "finite"),
            ("json_schema", {"schema": {"type": "objekt"}}, "is not a JSON Schema"),
            ("refusal", {"patterns": ["("]}, "not a regular expression"),
            ("refusal", {"patterns": []}, "is empty"),
            ("judge", {"model": "m"}, "exactly one of url and url_env"),
            ("judge", {"model": "m", "url": "http://x", "scale": [5, 1]}, "worst below best"),
            ("judge", {"model": "m", "url": "file:///etc/passwd"}, "which does not match"),
            ("command", {"argv": []}, "is empty"),
            ("python", {"module": "../x", "function": "f"}, "which does not match"),
        ],
    )
    def test_impossible_options_are_refused(self, name, options, message):
        with pytest.raises(InputError, match=re.escape(message)):
            scorers.get(name, options)


def test_a_schema_fetches_nothing():
    scorer = scorers.get("json_schema", {"schema": {"$ref": "http://127.0.0.1:9/schema.json"}})
    with pytest.raises(InputError, match="nothing is fetched"):
        scorer.score(sample(""), Answer(text="1"))
