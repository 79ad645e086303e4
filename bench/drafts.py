"""The other adapter's answers as drafts: what generation costs with them and without.

Candidates that agree with the baseline on a chosen share of the answers are made of the baseline
itself: a draft that "disagrees" is one whose tokens differ from a random place on. So agreement is
exact, the model is the same, and only the drafts change. Rounds alternate, in CPU seconds of one
thread.

What a draft can save is the difference between decoding a token and reading it among many. On a CPU
a step of a few rows is mostly overhead or, in a model larger than the caches, reading its weights,
and that is saved; a step of many rows is bound by arithmetic, as reading is: with 40 rows and four
answers in five that agree, half of the time of plain decoding would be spent if nothing cost any
but matrix products and attention. So all are shown. How many rows share a step is what the token
budget makes of their lengths: by default 16,384, so that 8 rows are what prompts and answers of
2,000 tokens come to.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from adapterbot.eval.answers import Answer, GenerationSettings, Request, Sample
from adapterbot.eval.base_model import BaseModel, load_base
from adapterbot.eval.local import LocalModel
from adapterbot.eval.questions import Ids, Question
from adapterbot.eval.settings import EngineSettings
from adapterbot.eval.suite import Task
from adapterbot.records import Direction, ScoreKind, Unit
from bench.figures import Figure, median
from bench.workloads import WORDS, random_llama

NEW_TOKENS = 48
ASKED = {1.0: "", 0.8: "; asked ≥ 3 ×", 0.0: "; asked ≥ 0.95 ×"}


@dataclass(frozen=True)
class Setting:
    """What shares a batch: a token budget and samples; and what is measured of it."""

    rows: str
    budget: int
    count: int
    shares: tuple[float, ...] = (1.0, 0.8, 0.0)
    rounds: int = 2


SMALL = (
    Setting("one row at a time", 1, 20),
    Setting("8 to 11 rows at a time", 800, 120, rounds=7),
    Setting("40 to 60 rows at a time", 3600, 120, rounds=7),
)
# The weights of the one fit into a cache, those of the other do not: as in a model that is used.
LARGE = (
    Setting("one row at a time", 1, 10, (0.8,), 1),
    Setting("8 rows at a time", 8 * 64, 24, (0.8, 0.0), 1),
    Setting("16 rows at a time", 16 * 64, 32, (0.8,), 1),
)


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


def figures(model: str, base: BaseModel, setting: Setting) -> Iterator[Figure]:
    """One size of batch, at every share of answers that agree."""
    work = task(setting.count)
    want, _ = asked(base, setting.budget, work, None)
    for share in setting.shares:
        plain, with_drafts = [], []
        for _ in range(setting.rounds):
            plain.append(asked(base, setting.budget, work, None)[1])
            found, seconds = asked(base, setting.budget, work, drafted(want, share))
            with_drafts.append(seconds)
            if found != want:
                raise SystemExit("a draft changed an answer")
        mine, other = median(with_drafts), median(plain)
        yield Figure(
            name=f"drafts: {share:.0%} of the answers agree",
            setting=f"{model}, {setting.count} × {NEW_TOKENS} tokens, {setting.rows}, one thread,"
            f" CPU seconds, same texts{ASKED[share]}",
            ours=f"{mine:.2f} s with drafts",
            other=f"{other:.2f} s without, {other / mine:.2f} × as long",
            ratio=mine / other,
        )


def measure() -> list[Figure]:
    """All, four in five and none of the answers agree, for few rows and for many."""
    torch.set_num_threads(1)
    found: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        small = random_llama(Path(folder) / "small", hidden=256, layers=4)
        large = random_llama(Path(folder) / "large", hidden=1024, layers=12, vocab_size=32_000)
        for model, path, settings in (
            ("random Llama, hidden 256, 4 layers", small, SMALL),
            ("random Llama of 207 M parameters, hidden 1024, 12 layers", large, LARGE),
        ):
            base = load_base(path, EngineSettings(device="cpu", dtype="float32"))
            for setting in settings:
                found += figures(model, base, setting)
    return found
