"""From an answer to a score that can be kept. No torch here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from adapterbot.eval import scorers
from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.cache import CachedScore
from adapterbot.eval.questions import Ids, Unanswered
from adapterbot.eval.scorers.base import Scorer
from adapterbot.records import SampleScore, SavedTask

_TEXT_LIMIT = 32 * 1024


@contextmanager
def scorer_of(task: SavedTask) -> Iterator[Scorer]:
    """A task's scorer, for as long as it is needed."""
    scorer = scorers.get(task.scorer, task.scorer_options)
    try:
        yield scorer
    finally:
        scorer.close()


def scored(scorer: Scorer, sample: Sample, answer: Answer | Unanswered) -> CachedScore:
    """What a scorer says of an answer; what is no finite number is a missing score, with why."""
    ids: Ids
    if isinstance(answer, Unanswered):
        found, text, ids = Scored(None, answer.reason), "", ()
    else:
        found, text, ids = scorer.score(sample, answer), answer.text, answer.token_ids
    if found.score is not None and not math.isfinite(found.score):
        found = Scored(None, f"{scorer.name} gave {found.score}")
    return CachedScore(
        SampleScore(
            sample_id=sample.id,
            score=found.score,
            missing=found.missing,
            prompt=_clipped(sample.prompt),
            expected=_clipped(sample.expected),
            output=_clipped(text),
            slice=sample.slice,
            cluster=sample.cluster,
            stats=found.stats,
        ),
        ids,
    )


def _clipped(text: str) -> str:
    return text if len(text) <= _TEXT_LIMIT else text[: _TEXT_LIMIT - 1] + "…"
