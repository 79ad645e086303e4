"""Two adapters on the same requests: our engine beside lm-eval, which runs once for each.

Whole processes are both sides' commands, `lm_eval run` and `adapterbot eval`, on the same rows. The
rest drives lm-eval through its own `HFLM` with `peft=`. It gets the batch size that suits it best,
tried here. Both get one thread, and CPU seconds are compared: a neighbour on the machine does not
change them.
The answers are held against each other, so that both did the same work.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import peers
from bench.figures import Figure, children, median, timed
from bench.workloads import Workload, example, few_shot, llama

REQUIREMENTS = ("lm_eval[hf]==0.4.13", "peft==0.21.2")
SIZES = [8, 32, 128]
ROUNDS = 1
# Asked one by one in lm-eval's default batch; what they cost is scaled to all prompts.
ONE_BY_ONE = 16
MOST_APART = 1e-4


def process(arguments: list[Any]) -> dict[str, Any]:
    """What a process printed last."""
    done = run(arguments, {})
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def cpu_seconds(arguments: list[Any], environment: dict[str, str]) -> float:
    """The CPU seconds of a process's whole life."""
    return timed(lambda: run(arguments, environment), clock=children)


def run(arguments: list[Any], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    given = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        arguments,
        env={**os.environ, **given, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done


class Sides:
    """Both of them on one workload."""

    def __init__(self, work: Workload, python: Path) -> None:
        self.work = work
        self._python = python

    def theirs(self, adapter: Path, **options: Any) -> dict[str, Any]:
        script = Path(__file__).parent / "peer_scripts" / "lm_eval_side.py"
        asked = {"base": str(self.work.base), "adapter": str(adapter), **options}
        asked["folder"] = str(self.work.folder)
        return process([self._python, script, json.dumps(asked)])

    def ours(self) -> dict[str, Any]:
        asked = {
            "base": str(self.work.base),
            "adapters": [str(adapter) for adapter in self.work.adapters],
            "folder": str(self.work.folder),
        }
        return process([sys.executable, "-m", "bench.our_side", json.dumps(asked)])

    def one_by_one(self) -> float:
        """CPU seconds that lm-eval would take for all prompts of both adapters, one at a time."""
        asked = {"weigh": [], "write": [1], "first": ONE_BY_ONE}
        found = [self.theirs(adapter, **asked) for adapter in self.work.adapters]
        spent: float = sum(one["write"]["seconds"]["1"] for one in found)
        return spent * self.work.prompts / ONE_BY_ONE

    def our_command(self) -> float:
        """CPU seconds of `adapterbot eval` on both adapters, with nothing cached."""
        with tempfile.TemporaryDirectory() as folder:
            return cpu_seconds(
                [
                    peers.runner(),
                    *("-m", "adapterbot", "eval", *map(str, self.work.adapters)),
                    *("--base", str(self.work.base), "--device", "cpu"),
                    *("--suite", str(self.work.folder / "suite.yaml"), "--out", folder),
                ],
                {"ADAPTERBOT_CACHE": folder, "PYTHONPATH": str(peers.ROOT)},
            )

    def their_command(self, batch: int) -> float:
        """CPU seconds of `lm_eval run` for one adapter after the other."""
        spent = 0.0
        for adapter in self.work.adapters:
            model = f"pretrained={self.work.base},peft={adapter},dtype=float32"
            with tempfile.TemporaryDirectory() as folder:
                spent += cpu_seconds(
                    [
                        self._python,
                        *("-m", "lm_eval", "run", "--model", "hf", "--model_args", model),
                        *("--device", "cpu", "--batch_size", str(batch)),
                        *("--include_path", str(self.work.folder / "lm_eval")),
                        *("--tasks", "choose,write", "--output_path", folder, "--log_samples"),
                    ],
                    {"HF_HOME": folder},
                )
        return spent


def best_sizes(sides: Sides) -> dict[str, int]:
    """The batch size at which lm-eval is fastest, for either kind of request."""
    found = sides.theirs(sides.work.adapters[0], weigh=SIZES, write=SIZES)
    return {
        kind: int(min(found[kind]["seconds"], key=found[kind]["seconds"].get))
        for kind in ("weigh", "write")
    }


def agreement(ours: dict[str, Any], theirs: list[dict[str, Any]]) -> float:
    """The largest difference between two log-likelihoods; texts must be the same.

    lm-eval pads with a mask where we do not share, so the last bits differ.
    """
    apart = 0.0
    for mine, other in zip(ours["answers"], theirs, strict=True):
        pairs = zip(mine["weigh"], other["weigh"]["answers"], strict=True)
        apart = max(apart, *(abs(a - b) for a, b in pairs))
        differ = sum(a != b for a, b in zip(mine["write"], other["write"]["answers"], strict=True))
        if differ:
            raise SystemExit(f"{differ} of {len(mine['write'])} texts differ from lm-eval's")
    if apart > MOST_APART:
        raise SystemExit(f"log-likelihoods differ by {apart:.1e}")
    return apart


def on(work: Workload, python: Path) -> list[Figure]:
    """One workload, the sides in turn."""
    sides = Sides(work, python)
    sizes = best_sizes(sides)
    batches = {kind: [size] for kind, size in sizes.items()}
    whole: list[tuple[float, float]] = []
    inside: dict[str, list[tuple[float, float]]] = {"choose": [], "write": []}
    alone: list[tuple[float, float]] = []
    apart = 0.0
    for _ in range(ROUNDS):
        mine = sides.ours()
        alone.append((mine["seconds"]["write"], sides.one_by_one()))
        theirs = [sides.theirs(adapter, **batches) for adapter in work.adapters]
        whole.append((sides.our_command(), sides.their_command(sizes["weigh"])))
        for task, kind in (("choose", "weigh"), ("write", "write")):
            spent = sum(sum(found[kind]["seconds"].values()) for found in theirs)
            inside[task].append((mine["seconds"][task], spent))
        apart = max(apart, agreement(mine, theirs))

    def figure(name: str, setting: str, pairs: list[tuple[float, float]], wanted: str) -> Figure:
        mine, theirs = (median(pair[side] for pair in pairs) for side in (0, 1))
        return Figure(
            name=f"engine against lm-eval: {name}",
            setting=f"{work.name}, two adapters, one thread, CPU seconds; {setting}; {wanted}",
            ours=f"{mine:.2f} s",
            other=f"lm-eval {theirs:.2f} s, {theirs / mine:.1f} × as long",
            ratio=mine / theirs,
        )

    asked = f"{4 * work.questions} likelihoods and {work.prompts} texts"
    return [
        figure(
            "whole processes",
            f"`adapterbot eval`, and `lm_eval run` twice at batch {sizes['weigh']}; {asked}, "
            f"scores within {apart:.0e}",
            whole,
            "asked ≥ 3 ×",
        ),
        figure(
            "multiple choice without start-up",
            f"{work.questions} questions of 4 options, its best batch {sizes['weigh']}",
            inside["choose"],
            "asked ≥ 2.4 ×",
        ),
        figure(
            "generation without start-up",
            f"{work.prompts} prompts, same texts, its best batch {sizes['write']}",
            inside["write"],
            "asked ≥ 1.2 ×",
        ),
        figure(
            "generation against its default batch of one",
            f"{ONE_BY_ONE} of {work.prompts} prompts timed there, scaled",
            alone,
            "asked ≥ 8 ×",
        ),
    ]


def measure() -> list[Figure]:
    """The example, the example as multiple choice is asked, and a random Llama."""
    python = peers.environment("lm-eval", *REQUIREMENTS) / "python"
    makers: tuple[Callable[[Path], Workload], ...] = (example, few_shot, llama)
    with tempfile.TemporaryDirectory() as folder:
        works = [make(Path(folder) / make.__name__) for make in makers]
        return [figure for work in works for figure in on(work, python)]
