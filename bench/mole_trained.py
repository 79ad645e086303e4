"""A mixture that is trained: four task adapters on the tiny example's base, a gate over them by
`adapterbot mole train`, and what comes of it beside every adapter alone.

    python -m bench mole_trained
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from peft import LoraConfig, get_peft_model

from adapterbot.commands.mole_train import train as train_gate
from adapterbot.console import PlainListener
from adapterbot.eval.engine import Engine
from adapterbot.eval.settings import EngineSettings
from adapterbot.eval.suite import Task, load_suite
from adapterbot.files.tree import WorkTree
from adapterbot.mole.artifact import read_mixture_dir
from adapterbot.mole.train import Progress
from adapterbot.records import TaskResult
from bench.figures import Figure

TINY = Path(__file__).resolve().parent.parent / "examples" / "tiny"
sys.path.insert(0, str(TINY))

import dates  # noqa: E402
import train  # noqa: E402

# What is asked under each instruction; each adapter learns one of them and no other.
INSTRUCTIONS = {
    "iso": "ISO date:",
    "month": "Month name:",
    "us": "US date:",
    "sender": "Sender:",
}
SENDERS = {"eu": "Rechnung", "us": "Invoice", "iso": "Issued"}
SEED = 0
BALANCE = 0.01
LAST_STEPS = 50
ADAPTER_ROWS, ADAPTER_STEPS, GATE_ROWS, HELD_OUT = 1600, 400, 1000, 100
SUITE_TASK = """\
  - name: {task}
    data: {task}.jsonl
    scorer: exact
    margin: 0.02
    generation: {{max_new_tokens: 16, stop: ["\\n"]}}
"""
SOUP = """\
base: {base}
task: moe_lora_routing
data: {{train: gate.jsonl, val_split: 0.1, max_length: 64}}
training:
  mole: {{num_task_adapters: 4, top_k: 2, temperature: 0.5, balance: {balance}}}
  mole_task_adapters: [./iso, ./month, ./us, ./sender]
  lr: 0.02
  epochs: 6
  batch_size: 32
output: ./{output}
"""


def answer(task: str, sample: dates.Sample) -> str:
    """What a task's adapter is to make of what is written."""
    return {
        "iso": f"{sample.date:%Y-%m-%d}",
        "month": f"{sample.date:%B}",
        "us": f"{sample.date:%m/%d/%y} (US)",
        "sender": SENDERS[sample.slice],
    }[task]


def rows(task: str, drawn: Iterable[dates.Sample]) -> list[dict[str, str]]:
    """Rows of one task in Soup's alpaca format."""
    return [
        {"instruction": INSTRUCTIONS[task], "input": one.text, "output": answer(task, one)}
        for one in drawn
    ]


@dataclass(frozen=True)
class Data:
    """Rows by task. No date text that is asked in the end is trained on, under any task."""

    adapters: dict[str, list[dict[str, str]]]
    gate: dict[str, list[dict[str, str]]]
    asked: dict[str, list[dict[str, str]]]

    @classmethod
    def drawn(cls, seed: int) -> Self:
        """The data of a seed."""
        examiner = dates.Drawer(seed)
        held_out = {task: examiner.mixed(HELD_OUT) for task in INSTRUCTIONS}
        cores = frozenset(one.core for drawn in held_out.values() for one in drawn)
        drawer = dates.Drawer(seed + 1, cores)
        return cls(
            {task: rows(task, drawer.mixed(ADAPTER_ROWS)) for task in INSTRUCTIONS},
            {task: rows(task, drawer.mixed(GATE_ROWS)) for task in INSTRUCTIONS},
            {task: rows(task, drawn) for task, drawn in held_out.items()},
        )


def write_rows(path: Path, content: Sequence[dict[str, str]]) -> None:
    path.write_text("".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in content))


def train_adapter(task: str, content: Sequence[dict[str, str]], place: Path) -> None:
    """One task's adapter. The first layer is left alone: its gate would see a token and no more."""
    base, tokenizer = train.load_base(TINY / "base")
    torch.manual_seed(1)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=8,
        lora_alpha=16,
        target_modules=list(train.Recipe().target_modules),
        layers_to_transform=[1, 2, 3],
        base_model_name_or_path="base",
    )
    model = get_peft_model(base, config)
    pairs = [(dates.prompt(one["instruction"], one["input"]), one["output"]) for one in content]
    rates = [
        5e-3 * 0.5 * (1 + math.cos(math.pi * step / ADAPTER_STEPS)) for step in range(ADAPTER_STEPS)
    ]
    train.fit(model, tokenizer, train.batches(pairs, 32, random.Random(1)), rates)
    train.save_adapter(model, place / task)
    train.log(f"adapter {task}")


@dataclass(frozen=True)
class Trained:
    """A mixture, how even its gate was in the last steps, and its loss on held-out rows."""

    path: Path
    balance: float
    loss: float


def train_mixture(place: Path, output: str, balance: float) -> Trained:
    """A mixture over the adapters in `place`."""
    config = place / f"{output}.yaml"
    config.write_text(SOUP.format(base=TINY / "base", balance=balance, output=output))
    seen: list[Progress] = []
    done = train_gate(config, seen.append, PlainListener(), device="cpu")
    train.log(f"gate {output}: held-out loss {done.loss:.4f}")
    last = [progress.balance for progress in seen[-LAST_STEPS:]]
    return Trained(place / output, sum(last) / len(last), done.loss)


def write_suite(content: Mapping[str, Sequence[dict[str, str]]], place: Path) -> tuple[Task, ...]:
    """Held-out rows of every task as a suite."""
    for task, held_out in content.items():
        asked = [
            {
                "id": f"{task}-{number:03}",
                "prompt": dates.prompt(one["instruction"], one["input"]),
                "expected": one["output"],
            }
            for number, one in enumerate(held_out)
        ]
        write_rows(place / f"{task}.jsonl", asked)
    text = "".join(SUITE_TASK.format(task=task) for task in INSTRUCTIONS)
    (place / "suite.yaml").write_text(f"version: 1\ntasks:\n{text}")
    return load_suite(WorkTree(place), "suite.yaml").tasks


def measure() -> list[Figure]:
    """Adapters, two gates (with the balance loss and without), and how they answer."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        data = Data.drawn(SEED)
        write_rows(place / "gate.jsonl", [one for part in data.gate.values() for one in part])
        tasks = write_suite(data.asked, place)
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(os.cpu_count(), spawn, torch.set_num_threads, (1,)) as pool:
            content = data.adapters.values()
            list(pool.map(train_adapter, data.adapters, content, [place] * len(content)))
            on = pool.submit(train_mixture, place, "balanced", BALANCE)
            off = pool.submit(train_mixture, place, "unbalanced", 0.0)
            gates = on.result(), off.result()
        with Engine(TINY / "base", EngineSettings(device="cpu", dtype="float32")) as engine:
            return _figures(engine, tasks, place, *gates)


def _figures(
    engine: Engine, tasks: Sequence[Task], place: Path, on: Trained, off: Trained
) -> list[Figure]:
    alone = {name: _right(engine.evaluate(tasks, place / name)) for name in INSTRUCTIONS}
    mixed, shares = _answered(engine, tasks, on)
    mixed_off, shares_off = _answered(engine, tasks, off)
    best = max(alone, key=lambda name: _mean(alone[name]))
    worst = min(INSTRUCTIONS, key=lambda task: mixed[task] - alone[task][task])
    least = min(shares, key=shares.__getitem__)
    setting = f"examples/tiny, 4 tasks × {HELD_OUT} held-out prompts, exact match, N 4, top 2"
    each = ", ".join(
        f"{task} {right:.0%} ({alone[task][task]:.0%})" for task, right in mixed.items()
    )
    routed = ", ".join(f"{task} {share:.1%}" for task, share in shares.items())
    return [
        Figure(
            name="MoLE trained: wrong answers, all tasks, against the best single adapter",
            setting=setting,
            ours=f"{1 - _mean(mixed):.1%}",
            other=f"{best} {1 - _mean(alone[best]):.1%}",
            ratio=(1 - _mean(mixed)) / (1 - _mean(alone[best])),
        ),
        Figure(
            name="MoLE trained: on a task against its specialist, the worst of the four",
            setting=f"{setting}; right, and its specialist: {each}",
            ours=f"{worst}: {mixed[worst]:.0%} right",
            other=f"{alone[worst][worst]:.0%} right (target within 2 points)",
            ratio=alone[worst][worst] / mixed[worst],
        ),
        Figure(
            name="MoLE trained: share of a task's answer tokens that went to its expert, the least",
            setting=f"{setting}; {routed}",
            ours=f"{least}: {shares[least]:.1%}",
            other="target ≥ 90 %",
            ratio=0.9 / shares[least],
        ),
        Figure(
            name="MoLE trained: balance loss on against off",
            setting=f"{setting}; N Σ f P of the last {LAST_STEPS} steps, prompts included: 1 is "
            "even, 4 is one expert for all",
            ours=_summary(on, mixed, shares),
            other=f"off {_summary(off, mixed_off, shares_off)}",
            ratio=on.balance / off.balance,
        ),
    ]


def _answered(
    engine: Engine, tasks: Sequence[Task], mixture: Trained
) -> tuple[dict[str, float], dict[str, float]]:
    """What is right of each task, and the share of its answers that its expert wrote."""
    files = read_mixture_dir(mixture.path)
    results = engine.evaluate(tasks, files)
    shares = {}
    for task, result in zip(tasks, results, strict=True):
        samples = {sample.id: sample for sample in task.samples}
        answered = [(samples[one.sample_id], one.output) for one in result.samples]
        found = engine.shares(files, answered)
        shares[task.name] = dict(zip(files.names, found, strict=True))[task.name]
    return _right(results), shares


def _summary(mixture: Trained, right: Mapping[str, float], shares: Mapping[str, float]) -> str:
    return (
        f"{mixture.balance:.3f}, held-out loss {mixture.loss:.4f}, {_mean(right):.1%} right, "
        f"least share {min(shares.values()):.1%}"
    )


def _right(results: Sequence[TaskResult]) -> dict[str, float]:
    return {
        one.task: sum(sample.score or 0.0 for sample in one.samples) / len(one.samples)
        for one in results
    }


def _mean(right: Mapping[str, float]) -> float:
    return sum(right.values()) / len(right)
