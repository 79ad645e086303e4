"""Make the four task specialists in `experts/` from seeds, and the suite that mixes their tasks.

    python examples/tiny/experts.py [--out DIR]

They are what a merge and a mixture start from: each is trained on one task only, so none is good
at all four. Needs what `make.py` needs, and the base, `soup.yaml` and suite that it made. It takes
seven minutes, measured on one core that others used too. Ends with exit code 1 if a specialist
is poor at its own task, or good at everything.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import dates
import make
import torch
import train

PERIODS = "periods"
PERIOD_INSTRUCTION = "Period:"
ROWS = 600
SEED = make.SEED + 100
RECIPE = replace(train.Recipe(), epochs=8)
TASKS = (*make.TASKS, PERIODS)

_README = """\
# Four specialists

Each was trained on one task only, with PEFT, on the base in `../base`; the rows are in
`../data/experts/`. None of them is good at all four: they are there to be merged or mixed.

Exact match in `../evals/mixed.yaml`, greedy decoding in float32 on a CPU, {count} samples a task:

{table}

Made from seeds by `python examples/tiny/experts.py`.
"""


def period(sample: dates.Sample) -> str:
    """The accounting period of a date: its month and year."""
    return f"{sample.date:%m/%Y}"


def training_rows(task: str, held_out: frozenset[str]) -> make.Rows:
    """What one specialist sees: its own task, none of the held-out dates."""
    index = TASKS.index(task)
    drawer = dates.Drawer(SEED + index, held_out)
    if task != PERIODS:
        slice_ = task.removeprefix("dates_")
        return [
            dates.training_row(f"{slice_}-{i:04}", drawer.draw(slice_)) for i in range(1, ROWS + 1)
        ]
    return [
        {
            **dates.training_row(f"period-{i:04}", sample),
            "instruction": PERIOD_INSTRUCTION,
            "output": period(sample),
        }
        for i, sample in enumerate(drawer.mixed(ROWS), 1)
    ]


def period_suite(exclude: frozenset[str]) -> tuple[list[dict[str, str]], frozenset[str]]:
    """Held-out dates of their own for the fourth task, from all slices alike."""
    examiner = dates.Drawer(SEED - 1, exclude)
    per_slice = -(-make.SAMPLES_PER_TASK // len(dates.SLICES))
    samples = [s for slice_ in dates.SLICES for s in examiner.distinct(slice_, per_slice)]
    rows = [
        {
            "id": f"period-{i:03}",
            "prompt": dates.prompt(PERIOD_INSTRUCTION, sample.text),
            "expected": period(sample),
            "category": sample.category,
        }
        for i, sample in enumerate(samples[: make.SAMPLES_PER_TASK], 1)
    ]
    return rows, frozenset(sample.core for sample in samples)


def train_expert(out: Path, task: str, rows: make.Rows) -> None:
    """One adapter on one task."""
    base, tokenizer = train.load_base(out / "base")
    seed = SEED + TASKS.index(task)
    model = train.new_adapter(base, RECIPE, seed)
    steps = RECIPE.epochs * (len(rows) // RECIPE.batch_size)
    rates = [RECIPE.lr * 0.5 * (1 + math.cos(math.pi * i / steps)) for i in range(steps)]
    stream = train.batches(make.pairs(rows), RECIPE.batch_size, random.Random(seed))
    loss = train.fit(model, tokenizer, stream, rates)
    train.save_adapter(model, out / "experts" / task)
    train.log(f"{task}: {steps} steps, loss {loss:.4f}")


def measure(out: Path, suite: make.Suite) -> make.Scores:
    """Accuracy of every stored specialist on every task."""
    scores: make.Scores = {}
    for task in TASKS:
        base, tokenizer = train.load_base(out / "base")
        model = train.restore_adapter(base, out / "experts" / task)
        scores[task] = train.accuracy(model, tokenizer, suite)
        train.log(f"{task}: {scores[task]}")
    return scores


def table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: a row per specialist, a column per task."""
    rows = [
        "| Specialist | " + " | ".join(f"`{task}`" for task in TASKS) + " |",
        "| --- |" + " ---: |" * len(TASKS),
    ]
    for name, found in scores.items():
        rows.append(f"| `{name}` | " + " | ".join(f"{found[task]:.0%}" for task in TASKS) + " |")
    return "\n".join(rows)


def main() -> int:
    """Data, specialists, suite, README."""
    parser = argparse.ArgumentParser(description="Make the four specialists from seeds.")
    parser.add_argument("--out", type=Path, default=make.HERE, help="default: beside this script")
    parser.add_argument("--threads", type=int, default=2, help="threads for torch (default: 2)")
    options = parser.parse_args()
    out: Path = options.out.resolve()
    torch.set_num_threads(options.threads)

    data = make.make_data()
    periods, cores = period_suite(data.held_out)
    suite = {**data.suite, PERIODS: periods}
    dates.write_jsonl(out / f"evals/{PERIODS}.jsonl", periods)
    text = "version: 1\ntasks:\n" + "".join(make.SUITE_TASK.format(task=task) for task in TASKS)
    (out / "evals/mixed.yaml").write_text(text, encoding="utf-8")
    shutil.rmtree(out / "experts", ignore_errors=True)
    for task in TASKS:
        rows = training_rows(task, data.held_out | cores)
        dates.write_jsonl(out / f"data/experts/{task}.jsonl", rows)
        train_expert(out, task, rows)
    scores = measure(out, suite)
    readme = _README.format(table=table(scores), count=make.SAMPLES_PER_TASK)
    (out / "experts/README.md").write_text(readme, encoding="utf-8")
    poor = [task for task in TASKS if scores[task][task] < 0.9]
    broad = [task for task in TASKS if sum(scores[task].values()) / len(TASKS) > 0.85]
    for task in poor:
        train.log(f"not as promised: {task} is poor at its own task")
    for task in broad:
        train.log(f"not as promised: {task} is good at everything")
    return 1 if poor or broad else 0


if __name__ == "__main__":
    sys.exit(main())
