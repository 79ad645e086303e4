"""Corpus metrics: the sums over samples say what the reference implementations say."""

import math
import random

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from adapterbot.eval import scorers
from adapterbot.eval.answers import Answer, Request, Sample
from adapterbot.records import ScoreKind

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "mat,",
    "quickly!",
    "3.5",
    "Größe",
    "'twas",
    "done.",
    "1,000",
]
SENTENCES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
CORPORA = st.lists(st.tuples(SENTENCES | st.just(""), SENTENCES), min_size=1, max_size=8)


def corpus_scorer(name, options=None):
    found = scorers.get(name, options)
    assert isinstance(found, scorers.CorpusScorer)
    return found


def scored(scorer, answer, expected):
    sample = Sample(id="s", prompt="p", expected=expected, fields={"expected": expected})
    return scorer.score(sample, Answer(text=answer))


def totals(scorer, corpus):
    return np.array([scored(scorer, *pair).stats for pair in corpus]).sum(axis=0)


@pytest.mark.parametrize(
    ("name", "options", "reference"),
    [
        ("bleu", {}, BLEU()),
        ("bleu", {"lowercase": True, "tokenize": "intl"}, BLEU(lowercase=True, tokenize="intl")),
        ("bleu", {"tokenize": "char"}, BLEU(tokenize="char")),
        ("chrf", {}, CHRF()),
        ("chrf", {"beta": 1.0, "lowercase": True}, CHRF(beta=1, lowercase=True)),
    ],
)
@given(corpus=CORPORA)
def test_the_sums_give_sacrebleus_corpus_score(name, options, reference, corpus):
    scorer = corpus_scorer(name, options)
    answers, expected = zip(*corpus, strict=True)
    wanted = reference.corpus_score(list(answers), [list(expected)]).score / 100
    assert float(scorer.aggregate(totals(scorer, corpus))) == pytest.approx(wanted, abs=1e-12)


@given(answer=SENTENCES, expected=SENTENCES)
def test_a_samples_own_score_is_sacrebleus_sentence_score(answer, expected):
    bleu = BLEU(effective_order=True).sentence_score(answer, [expected]).score / 100
    chrf = CHRF().sentence_score(answer, [expected]).score / 100
    assert scored(scorers.get("bleu"), answer, expected).score == pytest.approx(bleu)
    assert scored(scorers.get("chrf"), answer, expected).score == pytest.approx(chrf)


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_resamples_are_aggregated_at_once(name):
    rng = random.Random(1)
    corpus = [
        (" ".join(rng.choices(WORDS, k=8)), " ".join(rng.choices(WORDS, k=8))) for _ in range(30)
    ]
    scorer = corpus_scorer(name)
    stats = np.array([scored(scorer, *pair).stats for pair in corpus])
    weights = np.random.default_rng(2).multinomial(30, np.ones(30) / 30, size=50)
    together = scorer.aggregate(weights @ stats)
    assert together.shape == (50,)
    for weight, value in zip(weights, together, strict=True):
        drawn = [pair for pair, count in zip(corpus, weight, strict=True) for _ in range(count)]
        answers, expected = zip(*drawn, strict=True)
        reference = BLEU() if name == "bleu" else CHRF()
        wanted = reference.corpus_score(list(answers), [list(expected)]).score / 100
        assert value == pytest.approx(wanted, abs=1e-12)


class TestLikelihood:
    ANSWERS = (
        Answer(loglikelihoods=(-12.0,), token_counts=(6,), byte_counts=(20,)),
        Answer(loglikelihoods=(-3.0,), token_counts=(9,), byte_counts=(40,)),
    )
    SAMPLE = Sample(id="s", prompt="", expected="x")

    def test_perplexity(self):
        scorer = corpus_scorer("perplexity")
        found = [scorer.score(self.SAMPLE, answer) for answer in self.ANSWERS]
        assert found[0].score == pytest.approx(math.exp(2))
        corpus = scorer.aggregate(np.sum([f.stats for f in found], axis=0))
        assert float(corpus) == pytest.approx(math.exp(15 / 15))

    def test_bits_per_byte(self):
        scorer = corpus_scorer("bits_per_byte")
        found = [scorer.score(self.SAMPLE, answer) for answer in self.ANSWERS]
        assert found[0].score == pytest.approx(12 / math.log(2) / 20)
        corpus = scorer.aggregate(np.sum([f.stats for f in found], axis=0))
        assert float(corpus) == pytest.approx(15 / math.log(2) / 60)

    @pytest.mark.parametrize("name", ["perplexity", "bits_per_byte"])
    @pytest.mark.parametrize(
        "answer",
        [
            Answer(),
            Answer(loglikelihoods=(-1.0,), token_counts=(0,), byte_counts=(0,)),
            Answer(loglikelihoods=(-math.inf,), token_counts=(1,), byte_counts=(1,)),
            Answer(loglikelihoods=(math.nan,), token_counts=(1,), byte_counts=(1,)),
        ],
    )
    def test_what_is_not_finite_is_no_score(self, name, answer):
        found = scorers.get(name).score(self.SAMPLE, answer)
        assert found.score is None
        assert found.missing

    def test_perplexity_beyond_a_float_is_no_score(self):
        answer = Answer(loglikelihoods=(-800.0,), token_counts=(1,), byte_counts=(1,))
        assert scorers.get("perplexity").score(self.SAMPLE, answer).score is None


@pytest.mark.parametrize("name", ["bleu", "chrf", "perplexity", "bits_per_byte"])
def test_an_empty_corpus_is_nan_not_zero(name):
    scorer = corpus_scorer(name)
    width = {"bleu": 10, "chrf": 18}.get(name, 2)
    assert np.isnan(scorer.aggregate(np.zeros((3, width)))).all()
    assert scorer.kind is ScoreKind.CONTINUOUS
    assert (scorer.request is Request.LIKELIHOOD) == (width == 2)


@given(st.text(max_size=30), st.text(min_size=1, max_size=30))
def test_any_text_has_a_score_between_0_and_1(answer, expected):
    for name in ("bleu", "chrf", "rouge_l"):
        scorer = scorers.get(name)
        sample = Sample(id="s", prompt="p", expected=expected, fields={"expected": expected})
        assume(scorer.check(sample) is None)
        found = scorer.score(sample, Answer(text=answer)).score
        assert found is not None
        assert -1e-9 <= found <= 1 + 1e-9
