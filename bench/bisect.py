"""How many probes a search costs, how often it is right, and what a probe costs in process.

Simulated: 1,000 checkpoints, the first bad one anywhere between the ends, failure rates unknown to
the search, beside the strategy of git_bayesect on the same seeds. It claims 95 %, and 97 % by
chunks of samples.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from adapterbot.bisect import PairedBinary, Posterior, Scores, expected_churn, uniform
from bench.figures import Figure, children, median, timed

CHECKPOINTS = 1_000
RUNS = int(os.environ.get("BISECT_RUNS", "500"))
CORES = os.cpu_count() or 1
GATE_SAMPLES = 100
SUITE = 400  # a suite of more samples, all of which the gate measured
CLAIM = 0.95
LIMIT = 20_000
PEER = "git-bayesect==1.2"
# Checkpoints that are probed in one pass.
_TOGETHER = 4


@dataclass(frozen=True)
class Searched:
    """Means over many searches: what was asked, how often the answer was right, and the standard
    error of the first."""

    asked: float
    error: float
    right: float


def summary(runs: list[tuple[float, bool]]) -> Searched:
    asked = np.array([run[0] for run in runs], dtype=np.float64)
    error = float(asked.std() / len(asked) ** 0.5)
    return Searched(float(asked.mean()), error, float(np.mean([run[1] for run in runs])))


def searches(one: Callable[[np.random.Generator], tuple[float, bool]], runs: int) -> Searched:
    return summary([_seeded(one, run) for run in range(runs)])


def shared_searches(
    one: Callable[[np.random.Generator], tuple[float, bool]], runs: int
) -> Searched:
    """The same ones, shared by all cores."""
    with ProcessPoolExecutor(CORES, initializer=threadpool_limits, initargs=(1,)) as pool:
        found = pool.map(partial(_seeded, one), range(runs), chunksize=max(1, runs // (10 * CORES)))
        return summary(list(found))


def _seeded(
    one: Callable[[np.random.Generator], tuple[float, bool]], run: int
) -> tuple[float, bool]:
    return one(np.random.default_rng([7, run]))


def pass_fail(
    rng: np.random.Generator, good: float, bad: float, *, gate: int, n: int = CHECKPOINTS
) -> tuple[float, bool]:
    """One search by pass or fail. `gate`: samples that were measured at both ends; without any, the
    ends are probed, and counted."""
    first_bad = int(rng.integers(1, n))
    posterior = Posterior(n, prior=uniform(n, ends=(0.0, 0.0)))
    posterior.tell(0, rng.random(gate or 1) < good)
    posterior.tell(n - 1, rng.random(gate or 1) < bad)
    asked = 0 if gate else 2
    while posterior.best()[1] < CLAIM and asked < LIMIT:
        index = posterior.ask()
        if index is None:
            break
        posterior.tell(index, bool(rng.random() < (bad if index >= first_bad else good)))
        asked += 1
    return asked, posterior.best()[0] == first_bad


def scores(
    rng: np.random.Generator, distance: float, *, gate: int = GATE_SAMPLES, n: int = CHECKPOINTS
) -> tuple[float, bool]:
    """One search by scores that lie `distance` standard deviations apart. `gate`: as many were
    measured at each end, and say how far the means lie apart; without any, the ends are probed, and
    counted."""
    first_bad = int(rng.integers(1, n))
    posterior = Posterior(n, Scores(), prior=uniform(n, ends=(0.0, 0.0)))
    posterior.tell(0, rng.normal(0.0, 1.0, gate or 1))
    posterior.tell(n - 1, rng.normal(distance, 1.0, gate or 1))
    asked = 0 if gate else 2
    while posterior.best()[1] < CLAIM and asked < LIMIT:
        index = posterior.ask()
        if index is None:
            break
        posterior.tell(index, rng.normal(distance if index >= first_bad else 0.0))
        asked += 1
    return asked, posterior.best()[0] == first_bad


def paired(
    rng: np.random.Generator,
    good: tuple[float, float] = (0.03, 0.03),
    bad: tuple[float, float] = (0.12, 0.02),
    *,
    suite: int = SUITE,
    chunk: int = 8,
    claim: float = 0.97,
    n: int = CHECKPOINTS,
) -> tuple[float, bool]:
    """One search by chunks of samples. `good`, `bad`: shares of samples that get worse and better;
    the bad end was measured by the gate on the whole suite."""
    first_bad = int(rng.integers(1, n))

    def draw(shares: tuple[float, float], count: int) -> np.ndarray:
        worse, better = shares
        return rng.choice([1.0, 0.0, -1.0], count, p=[worse, 1.0 - worse - better, better])

    seen = draw(bad, suite)
    posterior = Posterior(
        n, PairedBinary(expected_churn(seen)), prior=uniform(n, ends=(0.0, 0.0)), room=suite
    )
    posterior.tell(n - 1, seen)
    asked = 0
    while posterior.best()[1] < claim:
        index = posterior.ask(size=chunk)
        if index is None:
            break
        posterior.tell(index, draw(bad if index >= first_bad else good, chunk))
        asked += chunk
    return asked, posterior.best()[0] == first_bad


_THEIRS = """
import json, sys
import numpy as np
from git_bayesect import Bisector
n, first, runs, step, good, bad, gate, claim = json.loads(sys.argv[1])
found = []
for run in range(first, runs, step):
    rng = np.random.default_rng([7, run])
    first_bad = int(rng.integers(1, n))
    # Its history runs from new to old, and its change point is the last of the new ones.
    bisector = Bisector(np.ones(n))
    for yes in rng.random(gate or 1) < good:
        bisector.record(n - 1, bool(yes))
    for yes in rng.random(gate or 1) < bad:
        bisector.record(0, bool(yes))
    asked = 0 if gate else 2
    while bisector.distribution.max() < claim and asked < 20000:
        at = bisector.select()
        bisector.record(at, bool(rng.random() < (bad if n - 1 - at >= first_bad else good)))
        asked += 1
    found.append((asked, n - 1 - int(bisector.distribution.argmax()) == first_bad))
print(json.dumps(found))
"""


def theirs(runs: int, good: float, bad: float, gate: int) -> Searched:
    """The same searches by git_bayesect's `Bisector`, in an environment of its own."""
    import json

    from bench.peers import environment

    python = environment("git-bayesect-1.2", PEER) / "python"

    def share(first: int) -> list[tuple[float, bool]]:
        setting = json.dumps([CHECKPOINTS, first, runs, CORES, good, bad, gate, CLAIM])
        done = subprocess.run(
            [python, "-c", _THEIRS, setting],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        return [(asked, right) for asked, right in json.loads(done.stdout)]

    with ThreadPoolExecutor(CORES) as pool:
        return summary([one for some in pool.map(share, range(CORES)) for one in some])


def _shown(found: Searched) -> str:
    return f"{found.asked:.1f} ± {found.error:.1f} asked, right in {found.right:.1%}"


def by_exit_code() -> list[Figure]:
    cases: list[tuple[str, float, float, int]] = [
        ("10/60 %, the gate's samples", 0.1, 0.6, GATE_SAMPLES),
        ("10/60 %", 0.1, 0.6, 0),
        ("5/95 %", 0.05, 0.95, 0),
        ("30/50 %, the gate's samples", 0.3, 0.5, GATE_SAMPLES),
        ("30/50 %", 0.3, 0.5, 0),
    ]
    figures = []
    for name, good, bad, gate in cases:
        ours = shared_searches(partial(pass_fail, good=good, bad=bad, gate=gate), RUNS)
        other = theirs(RUNS, good, bad, gate)
        figures.append(
            Figure(
                name="bisect: probes of a noisy command",
                setting=f"{CHECKPOINTS:,} checkpoints, failure rates {name}, {RUNS:,} searches",
                ours=_shown(ours),
                other=f"git_bayesect {_shown(other)}",
                ratio=ours.asked / other.asked,
            )
        )
    return figures


def by_scores() -> list[Figure]:
    figures = []
    targets: list[tuple[str, Callable[[Any], tuple[float, bool]], float]] = [
        *(
            (
                f"scores {d:g} σ apart, {gate} of the gate's at each end",
                partial(scores, distance=d, gate=gate),
                target,
            )
            for d, target in ((1.0, 70.0), (2.0, 24.0), (4.0, 12.0))
            for gate in (GATE_SAMPLES, SUITE)
        ),
        ("paired chunks, samples, discordance 3/3 % → 12/2 %", paired, 650.0),
    ]
    for distance in (1.0, 2.0, 4.0):
        ours, after = (
            shared_searches(partial(scores, distance=distance, gate=gate), RUNS)
            for gate in (0, GATE_SAMPLES)
        )
        figures.append(
            Figure(
                name="bisect: probes by scores of which nothing was measured before",
                setting=f"{CHECKPOINTS:,} checkpoints, scores {distance:g} σ apart, "
                f"{RUNS:,} searches",
                ours=_shown(ours),
                other=f"with {GATE_SAMPLES} of the gate's at each end {_shown(after)}",
                ratio=ours.asked / after.asked,
            )
        )
    for name, one, target in targets:
        ours = shared_searches(one, RUNS)
        figures.append(
            Figure(
                name="bisect: probes by scores",
                setting=f"{CHECKPOINTS:,} checkpoints, {name}, {RUNS:,} searches",
                ours=_shown(ours),
                other=f"target ≤ {target:g}",
                ratio=ours.asked / target,
            )
        )
    return figures


def per_probe() -> list[Figure]:
    """A probe in process, and a process for each probe, in processor seconds: a whole checkpoint in
    both, and what a search really asks at a time."""
    from adapterbot.eval.engine import Engine
    from adapterbot.eval.evaluation import Ask
    from adapterbot.eval.suite import load_suite
    from adapterbot.files.tree import WorkTree
    from adapterbot.probing.chunks import CHUNK
    from adapterbot.weights.peft_dir import read_adapter_dir
    from tests import example

    tree = WorkTree(example.EXAMPLE)
    tasks = [t for t in load_suite(tree, "evals/suite.yaml").tasks if t.name == "dates_us"]
    run = sorted((example.EXAMPLE / "history" / "poisoned").iterdir())
    few = {"dates_us": [sample.id for sample in tasks[0].samples[:CHUNK]]}
    inside, asked, joint = [], [], []
    with Engine(example.EXAMPLE / "base") as engine:
        good = engine.evaluate(tasks, example.EXAMPLE / "adapters" / "dates")
        for checkpoint in run[6:14]:
            started = time.process_time()
            engine.evaluate(tasks, read_adapter_dir(checkpoint), drafts=good)
            inside.append(time.process_time() - started)
            started = time.process_time()
            engine.evaluate(tasks, read_adapter_dir(checkpoint), drafts=good, samples=few)
            asked.append(time.process_time() - started)
        for first in range(0, 8, _TOGETHER):
            started = time.process_time()
            engine.evaluate_together(
                [
                    Ask(tasks[0], read_adapter_dir(checkpoint), few["dates_us"])
                    for checkpoint in run[6 + first : 6 + first + _TOGETHER]
                ],
                drafts=good,
            )
            joint.append((time.process_time() - started) / _TOGETHER)
    program = (
        "import sys; from pathlib import Path\n"
        "from adapterbot.eval.engine import Engine\n"
        "from adapterbot.eval.suite import load_suite\n"
        "from adapterbot.files.tree import WorkTree\n"
        "tree = WorkTree(Path(sys.argv[1]))\n"
        "tasks = [t for t in load_suite(tree, 'evals/suite.yaml').tasks if t.name == 'dates_us']\n"
        "Engine(Path(sys.argv[1]) / 'base').evaluate(tasks, Path(sys.argv[2]))\n"
    )
    outside = []
    with tempfile.TemporaryDirectory() as folder:
        for checkpoint in run[6:9]:
            probe = partial(
                subprocess.run,
                [sys.executable, "-c", program, example.EXAMPLE, checkpoint],
                check=True,
                env={**os.environ, "ADAPTERBOT_CACHE": folder},
                cwd=Path(__file__).parent.parent,
            )
            outside.append(timed(probe, clock=children))
    other = median(outside)
    return [
        Figure(
            name="bisect: one probe",
            setting=f"examples/tiny, {count} samples of dates_us under one checkpoint, CPU time",
            ours=f"in process {1000 * median(seconds):.0f} ms",
            other=f"a process of its own for all 100 {other:.1f} s (target: 20 times ours)",
            ratio=median(seconds) / other,
        )
        for count, seconds in ((100, inside), (CHUNK, asked))
    ] + [
        Figure(
            name="bisect: one probe of several at once",
            setting=f"examples/tiny, {CHUNK} samples of dates_us under each of {_TOGETHER} "
            "checkpoints in one pass, CPU time",
            ours=f"{1000 * median(joint):.0f} ms each",
            other=f"one after the other {1000 * median(asked):.0f} ms",
            ratio=median(joint) / median(asked),
        )
    ]


def measure() -> list[Figure]:
    """`BISECT_RUNS=2000` makes as many searches as the targets are stated for."""
    return [*per_probe(), *by_exit_code(), *by_scores()]
