"""The other adapter's answers as drafts: what generation costs with them and without.

Candidates that agree with the baseline on a chosen share of the answers are made of the baseline
itself: a draft that "disagrees" is one whose tokens differ from a random place on. So agreement is
exact, the model is the same, and only the drafts change. Rounds alternate, in CPU seconds of one
thread.

What a draft can save is the difference between decoding a token and reading it among many. On a
CPU a step of a few rows is mostly overhead, and that is saved; a step of many rows is bound by
arithmetic, as reading is, and with 40 rows four fifths of the time of plain decoding would be spent
if reading cost nothing but its matrix products. So all are shown.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from adapterbot.eval.answers import Answer, GenerationSettings, Request, Sample
from adapterbot.eval.base_model import BaseModel, load_base
from adapterbot.eval.engine import LocalModel
from adapterbot.eval.questions import Ids, Question
from adapterbot.eval.settings import EngineSettings
from adapterbot.eval.suite import Task
from adapterbot.records import Direction, ScoreKind, Unit
from bench.figures import Figure, median
from bench.workloads import WORDS, random_llama

ROUNDS = 2
NEW_TOKENS = 48
# What shares a batch: token budget and samples.
SETTINGS = {
    "one row at a time": (1, 20),
    "8 to 11 rows at a time": (800, 120),
    "40 to 60 rows at a time": (3600, 120),
}


def task(count: int) -> Task:
    """Short prompts and long answers, of which all run to the limit."""
    source = random.Random(0)
    samples = tuple(
        Sample(id=str(i), prompt=" ".join(source.choices(WORDS, k=6)), expected="?")
        for i in range(count)
    )
    return Task(
        name="write",
        scorer="exact",
        direction=Direction.HIGHER,
        kind=ScoreKind.BINARY,
        unit=Unit.FRACTION,
        margin=0.0,
        gated=True,
        generation=GenerationSettings(max_new_tokens=NEW_TOKENS),
        request=Request.GENERATE,
        samples=samples,
        digest="0" * 64,
    )


def asked(
    base: BaseModel, budget: int, task: Task, drafts: Sequence[Ids] | None
) -> tuple[list[Ids], float]:
    """Every answer's tokens, and the CPU seconds they took."""
    one = LocalModel(base, EngineSettings(token_budget=budget))
    questions = [
        Question(task, sample, partial(tuple, drafts[i]) if drafts is not None else None)
        for i, sample in enumerate(task.samples)
    ]
    begun = time.process_time()
    found = dict(one.answers(questions))
    seconds = time.process_time() - begun
    answers = [found[i] for i in range(len(questions))]
    return [a.token_ids for a in answers if isinstance(a, Answer)], seconds


def drafted(answers: Sequence[Ids], share: float) -> list[Ids]:
    """Drafts of which `share` hold, and the rest differ from a random token on."""
    source = random.Random(1)
    agree = set(source.sample(range(len(answers)), round(share * len(answers))))
    found = []
    for index, ids in enumerate(answers):
        at = len(ids) if index in agree else source.randrange(len(ids) if share else 1)
        found.append((*ids[:at], *((token + 7) % 500 for token in ids[at:])))
    return found


def measure() -> list[Figure]:
    """All, four in five and none of the answers agree, for few rows and for many."""
    torch.set_num_threads(1)
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        path = random_llama(Path(folder), hidden=256, layers=4)
        base = load_base(path, EngineSettings(device="cpu", dtype="float32"))
        for rows, (budget, count) in SETTINGS.items():
            work = task(count)
            want, _ = asked(base, budget, work, None)
            for share, wanted in ((1.0, ""), (0.8, "; asked ≥ 3 ×"), (0.0, "; asked ≥ 0.95 ×")):
                plain, with_drafts = [], []
                for _ in range(ROUNDS):
                    plain.append(asked(base, budget, work, None)[1])
                    found, seconds = asked(base, budget, work, drafted(want, share))
                    with_drafts.append(seconds)
                    if found != want:
                        raise SystemExit("a draft changed an answer")
                mine, other = median(with_drafts), median(plain)
                figures.append(
                    Figure(
                        name=f"drafts: {share:.0%} of the answers agree",
                        setting=f"random Llama, hidden 256, 4 layers, {count} × {NEW_TOKENS} "
                        f"tokens, {rows}, one thread, CPU seconds, same texts{wanted}",
                        ours=f"{mine:.2f} s with drafts",
                        other=f"{other:.2f} s without, {other / mine:.2f} × as long",
                        ratio=mine / other,
                    )
                )
    return figures
