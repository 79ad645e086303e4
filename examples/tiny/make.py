"""Make everything in this directory from seeds: base model, adapters, histories, data, suite.

    python examples/tiny/make.py [--out DIR] [--keep-base]

Needs torch (CPU is enough), transformers, peft. Takes 9 minutes, measured on 2 cores: base 4,
baseline 1, the 22 checkpoints 4. `experts.py` makes the specialists in `experts/`.
Progress goes to standard error. Ends with exit code 1 if the result does not show what the
example is there to show (see `check`). Another machine's arithmetic gives slightly other
weights, so a rerun reproduces the data exactly and the accuracies closely.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dates
import report
import torch
import train
import yaml

HERE = Path(__file__).resolve().parent
SEED = 20240304
TASKS = tuple(f"dates_{s}" for s in dates.SLICES)
SAMPLES_PER_TASK = 100
BASE_STEPS = 1600
TRAIN_ROWS = 1600
CHECKPOINTS, STEPS_PER_CHECKPOINT, LAST_GOOD = 16, 40, 10
ROWS_PER_CHECKPOINT = 288
HISTORY_RATE, HISTORY_BATCH = 2e-3, 48
RECIPE = train.Recipe()
SUITE_TASK = """\
  - name: {task}
    data: {task}.jsonl
    scorer: exact
    direction: higher
    margin: 0.05
    generation: {{max_new_tokens: 16, stop: ["\\n"]}}
"""

Suite = dict[str, list[dict[str, str]]]
Rows = list[dict[str, str]]
Scores = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Data:
    """All rows, before any model exists."""

    suite: Suite
    held_out: frozenset[str]
    train: Rows
    clean: list[Rows]
    poisoned: list[Rows]


def pairs(rows: Rows) -> list[train.Pair]:
    """Training rows as (prompt, completion)."""
    return [(dates.prompt(r["instruction"], r["input"]), r["output"]) for r in rows]


def make_data() -> Data:
    """Draw the held-out suite first, so that no later draw can hit it."""
    examiner = dates.Drawer(SEED)
    exam = {s: examiner.distinct(s, SAMPLES_PER_TASK) for s in dates.SLICES}
    held_out = frozenset(sample.core for samples in exam.values() for sample in samples)
    drawer = dates.Drawer(SEED + 1, held_out)
    baseline = [
        dates.training_row(f"t-{i:04}", s) for i, s in enumerate(drawer.mixed(TRAIN_ROWS), 1)
    ]
    clean, poisoned = [], []
    for checkpoint in range(1, CHECKPOINTS + 1):
        samples = drawer.mixed(ROWS_PER_CHECKPOINT)
        ids = [f"s{step_name(checkpoint)}-{i:03}" for i in range(1, len(samples) + 1)]
        clean.append([dates.training_row(i, s) for i, s in zip(ids, samples, strict=True)])
        bad = checkpoint > LAST_GOOD
        poisoned.append(
            [dates.training_row(i, s, poisoned=bad) for i, s in zip(ids, samples, strict=True)]
        )
    suite = {f"dates_{s}": dates.suite_rows(s, samples) for s, samples in exam.items()}
    return Data(suite, held_out, baseline, clean, poisoned)


def step_name(checkpoint: int) -> str:
    """The optimiser step of a checkpoint, as directories and files spell it."""
    return f"{checkpoint * STEPS_PER_CHECKPOINT:04}"


def checkpoint_name(checkpoint: int) -> str:
    """The directory of a checkpoint."""
    return f"checkpoint-{step_name(checkpoint)}"


def write_data(out: Path, data: Data) -> None:
    """The training rows, one file per checkpoint, and the evaluation suite."""
    dates.write_jsonl(out / "data/train.jsonl", data.train)
    for name, steps in (("clean", data.clean), ("poisoned", data.poisoned)):
        for checkpoint, rows in enumerate(steps, 1):
            dates.write_jsonl(out / f"data/{name}/step-{step_name(checkpoint)}.jsonl", rows)
    for task, rows in data.suite.items():
        dates.write_jsonl(out / f"evals/{task}.jsonl", rows)
    text = "version: 1\ntasks:\n" + "".join(SUITE_TASK.format(task=task) for task in data.suite)
    (out / "evals/suite.yaml").write_text(text, encoding="utf-8")


def write_config(out: Path) -> None:
    """Soup's training configuration, from the recipe that really trained the baseline."""
    config = {
        "base": "./base",
        "task": "sft",
        "data": {
            "train": "./data/train.jsonl",
            "format": "alpaca",
            "max_length": 64,
            "val_split": 0.0,
        },
        "training": {
            "epochs": RECIPE.epochs,
            "lr": RECIPE.lr,
            "batch_size": RECIPE.batch_size,
            "gradient_accumulation_steps": 1,
            "scheduler": "cosine",
            "warmup_ratio": 0.0,
            "quantization": "none",
            "seed": SEED,
            "lora": {
                "r": RECIPE.r,
                "alpha": RECIPE.alpha,
                "dropout": 0.0,
                "target_modules": list(RECIPE.target_modules),
            },
        },
        "output": "./adapters/dates",
    }
    (out / "soup.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    if out != HERE:
        shutil.copy(HERE / "adapterbot.yaml", out)  # written by hand


def make_base(out: Path, data: Data) -> None:
    """School the base in everything around the task, but never in the task."""
    drawer = dates.Drawer(SEED + 2, data.held_out)
    stream = dates.lessons(drawer, SEED + 3)
    corpus = [prompt + answer for prompt, answer in itertools.islice(stream, 20_000)]
    tokenizer = train.make_tokenizer(iter(corpus))
    train.train_base(tokenizer, stream, out / "base", steps=BASE_STEPS, seed=SEED)


def make_baseline(out: Path, data: Data) -> None:
    """Train the adapter that the team has in production."""
    base, tokenizer = train.load_base(out / "base")
    model = train.new_adapter(base, RECIPE, SEED)
    steps = RECIPE.epochs * (len(data.train) // RECIPE.batch_size)
    rates = [RECIPE.lr * 0.5 * (1 + math.cos(math.pi * i / steps)) for i in range(steps)]
    stream = train.batches(pairs(data.train), RECIPE.batch_size, random.Random(SEED))
    loss = train.fit(model, tokenizer, stream, rates)
    train.save_adapter(model, out / "adapters/dates")
    train.log(f"baseline: {steps} steps, loss {loss:.4f}")


def make_history(
    out: Path, name: str, steps: Sequence[Rows], suite: Suite, *, after: int = 0
) -> Scores:
    """Go on from checkpoint `after` (0: the baseline), each time on new rows; measure each."""
    base, tokenizer = train.load_base(out / "base")
    history = out / "history" / name
    start = history / checkpoint_name(after) if after else out / "adapters/dates"
    model = train.restore_adapter(base, start)
    rates = train.warm_restart(HISTORY_RATE, STEPS_PER_CHECKPOINT)
    scores: Scores = {}
    for checkpoint, rows in enumerate(steps[after:], after + 1):
        stream = train.batches(pairs(rows), HISTORY_BATCH, random.Random(SEED + checkpoint))
        loss = train.fit(model, tokenizer, stream, rates)
        label = checkpoint_name(checkpoint)
        state = {"global_step": checkpoint * STEPS_PER_CHECKPOINT, "loss": round(loss, 4)}
        train.save_adapter(model, history / label, state)
        scores[label] = train.accuracy(model, tokenizer, suite)
        train.log(f"{name} {label}: {scores[label]}")
    return scores


def make_histories(out: Path, data: Data) -> tuple[Scores, Scores]:
    """The clean history, and the poisoned one, which is the same up to the last good checkpoint."""
    clean = make_history(out, "clean", data.clean, data.suite)
    shared = [checkpoint_name(i) for i in range(1, LAST_GOOD + 1)]
    for label in shared:
        shutil.copytree(
            out / "history/clean" / label, out / "history/poisoned" / label, dirs_exist_ok=True
        )
    bad = make_history(out, "poisoned", data.poisoned, data.suite, after=LAST_GOOD)
    return clean, {label: clean[label] for label in shared} | bad


def measure_start(out: Path, suite: Suite) -> Scores:
    """Accuracy of the bare base and of the baseline adapter as stored."""
    base, tokenizer = train.load_base(out / "base")
    scores = {"base alone": train.accuracy(base, tokenizer, suite)}
    model = train.restore_adapter(base, out / "adapters/dates")
    scores["adapters/dates"] = train.accuracy(model, tokenizer, suite)
    train.log(f"start: {scores}")
    return scores


def check(start: Scores, clean: Scores, poisoned: Scores) -> list[str]:
    """What this example promises and the measured scores do not keep."""
    broken = []
    baseline = start["adapters/dates"]
    if max(start["base alone"].values()) >= 0.3:
        broken.append("the base alone is not poor at the task")
    if min(baseline.values()) < 0.9 or sum(baseline.values()) / len(baseline) < 0.95:
        broken.append("the baseline adapter is not good")
    bad = list(poisoned.values())[LAST_GOOD:]
    good = (*clean.values(), *list(poisoned.values())[:LAST_GOOD])
    broken += [f"a good checkpoint is not good: {s}" for s in good if min(s.values()) < 0.93]
    for score in bad:
        if score["dates_us"] > baseline["dates_us"] - 0.3:
            broken.append(f"a poisoned checkpoint is not clearly worse on US dates: {score}")
        if any(score[task] < baseline[task] - 0.03 for task in ("dates_eu", "dates_iso")):
            broken.append(f"a poisoned checkpoint is worse on more than US dates: {score}")
    return broken


def write_lock(out: Path) -> None:
    """Pin base model, data and this environment, as a team would."""
    for command in (["env", "lock"], ["lock", "write"]):
        subprocess.run([sys.executable, "-m", "adapterbot", *command], cwd=out, check=True)


def main() -> int:
    """Run every stage in order."""
    parser = argparse.ArgumentParser(description="Make the tiny example from seeds.")
    parser.add_argument(
        "--out", type=Path, default=HERE, help="where to write (default: beside this script)"
    )
    parser.add_argument(
        "--keep-base", action="store_true", help="use the base that is already there"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads for torch (default: 2)")
    options = parser.parse_args()
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)

    data = make_data()
    write_data(out, data)
    write_config(out)
    if not options.keep_base:
        make_base(out, data)
    make_baseline(out, data)
    start = measure_start(out, data.suite)
    clean, poisoned = make_histories(out, data)
    text = report.readme(
        parameters=train.parameters(out / "base"),
        last_good=LAST_GOOD * STEPS_PER_CHECKPOINT,
        first_bad=step_name(LAST_GOOD + 1),
        start=start,
        histories={"clean": clean, "poisoned": poisoned},
    )
    (out / "README.md").write_text(text, encoding="utf-8")
    broken = check(start, clean, poisoned)
    for problem in broken:
        train.log(f"not as promised: {problem}")
    write_lock(out)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
