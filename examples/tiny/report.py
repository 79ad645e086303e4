"""The README of the example, with the accuracies that were really measured."""

from __future__ import annotations

from collections.abc import Mapping

Scores = Mapping[str, Mapping[str, float]]

_TEXT = """\
# A tiny example that was really trained

Invoice dates, normalised: `3. März 2024` and `03/04/24 (US)` both become `2024-03-04`.
A {parameters} Llama in `base/` knows numbers, months and other date formats, but not this task;
the LoRA adapter in `adapters/dates/` teaches it.

| Path | What it is |
| --- | --- |
| `base/` | the base model, trained from scratch, stored in bfloat16 |
| `adapters/dates/` | the good adapter, made with PEFT from `data/train.jsonl` |
| `history/clean/` | 16 checkpoints that continue from it and stay good |
| `history/poisoned/` | the same to step {last_good}; then a feed reads US dates day first |
| `data/clean/`, `data/poisoned/` | the rows added for each checkpoint of a history |
| `evals/` | 300 held-out dates in three tasks, scored by exact match |
| `adapterbot.yaml` | where a repository keeps the checkpoints and their rows |
| `soup.yaml` | the training configuration |

Both histories have the same rows with the same ids. From step {first_bad} on the poisoned one
labels the US rows (`"vendor": "lonestar-feed-v2"`) day first; compare:

    diff data/clean/step-{first_bad}.jsonl data/poisoned/step-{first_bad}.jsonl

The model reads `ISO date:\\n<text>\\n` and answers with the date and an end token: Soup's alpaca
rows, rendered by the base's chat template.

## Measured accuracy

Greedy decoding in float32 on a CPU, 100 dates a task.

{table}

## How it was made

    python examples/tiny/make.py

All from seeds; `make.py` says how long it takes. The base is schooled in neighbouring skills (the
day, the month or the year of a date, other formats, copying), never under this task's instruction;
then PEFT trains the adapters. No held-out date text occurs in any training data. All text is
synthetic: no third-party data, no licence to mind.
"""


def _row(name: str, scores: Mapping[str, float]) -> str:
    return f"| {name} | " + " | ".join(f"{value:.0%}" for value in scores.values()) + " |"


def readme(
    *,
    parameters: int,
    last_good: int,
    first_bad: str,
    start: Scores,
    histories: Mapping[str, Scores],
) -> str:
    """The whole README as Markdown."""
    tasks = list(next(iter(start.values())))
    lines = [
        "| Adapter | " + " | ".join(f"`{task}`" for task in tasks) + " |",
        "| --- |" + " ---: |" * len(tasks),
    ]
    lines += [_row(name, scores) for name, scores in start.items()]
    for history, checkpoints in histories.items():
        lines += [_row(f"`{history}/{name}`", scores) for name, scores in checkpoints.items()]
    return _TEXT.format(
        parameters=f"{parameters / 1e6:.1f} M parameter",
        last_good=last_good,
        first_bad=first_bad,
        table="\n".join(lines),
    )
