"""What is worth telling a pull request that has no comment of ours yet."""

from __future__ import annotations

from adapterbot.publishing import CommentWhen
from adapterbot.records import AdapterReport, Outcome, Standing

_BAD = {Outcome.REGRESSED, Outcome.DRIFT, Outcome.NOT_JUDGED}
_QUIET = {Standing.OK, Standing.INFORMATIVE}


def worth_a_comment(adapter: AdapterReport, when: CommentWhen) -> bool:
    """Whether a section is worth a first comment.

    `regressions`: something fails, drifted or could not be judged. `changes`: that, or a metric
    that is not simply ok, or an answer that differs.
    """
    bad = adapter.problem is not None or adapter.verdict.fails or adapter.verdict.outcome in _BAD
    if when is CommentWhen.REGRESSIONS:
        return bad
    if when is CommentWhen.CHANGES:
        moved = any(metric.standing not in _QUIET for metric in adapter.metrics)
        return bad or moved or adapter.samples_changed > 0
    return True
