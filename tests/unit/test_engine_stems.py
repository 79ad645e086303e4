"""Which beginnings are read once: never more to read than without, and as little as can be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterbot.eval import stems
from adapterbot.eval.stems import stem_lengths


def spared(texts: list[tuple[int, ...]], lengths: list[int]) -> int:
    """Tokens that need not be read: all stems but the first of each kind."""
    kinds = {text[:length] for text, length in zip(texts, lengths, strict=True)}
    return sum(lengths) - sum(map(len, kinds))


@settings(max_examples=300)
@given(
    texts=st.lists(
        st.lists(st.integers(0, 1), min_size=1, max_size=6).map(tuple), min_size=1, max_size=12
    )
)
def test_no_one_beginning_spares_more(texts: list[tuple[int, ...]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stems, "_LEAST_SPARED", 1)
        lengths = stem_lengths(texts)
    assert all(length < len(text) for length, text in zip(lengths, texts, strict=True))
    for stem in {text[:size] for text in texts for size in range(1, len(text))}:
        sharing = [text for text in texts if len(text) > len(stem) and text[: len(stem)] == stem]
        assert (len(sharing) - 1) * len(stem) <= spared(texts, lengths)


def test_a_header_and_documents_under_it() -> None:
    header = tuple(range(40))
    documents = [(*header, *(100 + d,) * 30) for d in range(4)]
    questions = [(*document, 200 + q) for document in documents for q in range(5)]
    assert stem_lengths(questions) == [70] * 20
    others = [(*header, 300 + q) for q in range(9)]
    assert stem_lengths(questions + others) == [70] * 20 + [40] * 9
    assert stem_lengths([(*header, q) for q in range(20)]) == [40] * 20


def test_what_is_not_worth_a_pass_is_not_shared() -> None:
    assert stem_lengths([]) == []
    assert stem_lengths([(1, 2, 3)] * 3) == [0, 0, 0]
    assert stem_lengths([(1,), (2,) * 300]) == [0, 0]
    assert stem_lengths([(7,) * 300] * 2) == [299, 299], "the last token is everybody's own"
