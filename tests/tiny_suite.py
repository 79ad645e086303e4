"""Small tasks for the engine's tests, made of the words that the tiny tokenizer splits oddly."""

from __future__ import annotations

import hashlib
import random
from typing import Any

from adapterbot.eval.answers import GenerationSettings, Request, Sample
from adapterbot.eval.suite import Task
from adapterbot.records import Direction, ScoreKind, Unit

_WORDS = ["the", "thin", "inn", "is", "a", "bin", "with", "then", "and", "this", "thing", "in"]


def phrase(source: random.Random, most: int = 12) -> str:
    return " ".join(source.choices(_WORDS, k=source.randint(1, most)))


def task(
    name: str,
    scorer: str,
    request: Request,
    samples: tuple[Sample, ...],
    *,
    options: dict[str, Any] | None = None,
    **generation: Any,
) -> Task:
    settings = GenerationSettings(**{"max_new_tokens": 12, **generation})
    content = repr((name, scorer, options, request, samples, settings))
    return Task(
        name=name,
        scorer=scorer,
        scorer_options=options or {},
        direction=Direction.HIGHER,
        kind=ScoreKind.BINARY,
        unit=Unit.FRACTION,
        margin=0.0,
        gated=True,
        generation=settings,
        request=request,
        samples=samples,
        digest=hashlib.sha256(content.encode()).hexdigest(),
    )


def generate(count: int = 24, *, name: str = "written", seed: int = 0, **generation: Any) -> Task:
    """Free text, compared with an expectation that nothing meets."""
    source = random.Random(seed)
    samples = tuple(
        Sample(id=f"g{i}", prompt=phrase(source), expected="never") for i in range(count)
    )
    return task(name, "exact", Request.GENERATE, samples, **generation)


def choices(count: int = 12, *, seed: int = 1) -> Task:
    """Options of one and of many tokens, some behind a context that ends in a space."""
    source = random.Random(seed)
    samples = tuple(
        Sample(
            id=f"c{i}",
            prompt=phrase(source) + " " * (i % 3),
            expected="0",
            choices=(f"{phrase(source)}.", "a", f"in{i}"),
        )
        for i in range(count)
    )
    return task("chosen", "multiple_choice", Request.CHOICES, samples)


def likelihoods(count: int = 12, *, seed: int = 2) -> Task:
    """Whole texts and continuations."""
    source = random.Random(seed)
    samples = tuple(
        Sample(id=f"l{i}", prompt="" if i % 2 else phrase(source), expected=phrase(source))
        for i in range(count)
    )
    return task("likely", "bits_per_byte", Request.LIKELIHOOD, samples)
