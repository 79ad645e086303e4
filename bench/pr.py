"""`adapterbot pr` beside `soup adapters pr`: how many attacks live in the document, and how long it
takes to write one.

An attack lives when the page that GitHub's parser and sanitiser make of the document has other
elements than for a harmless string of its shape, when text outside code would be linked, or when
something in it is invisible. Both are judged by the same code, on the same strings in the same
fields: title, path, metric, dataset diff, prompt and both outputs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from adapterbot.errors import InputError
from adapterbot.pr import render
from adapterbot.pr.document import Evidence, document
from adapterbot.records import EvalDelta, SampleChange
from bench import peers
from bench.figures import Figure, median
from scripts.comment_picture import github_html
from tests.golden.attacks import ATTACKS
from tests.golden.github_view import Page, assert_dead, assert_nothing_hidden, harmless

ROOT = Path(__file__).parent.parent
ADAPTER = ROOT / "examples" / "tiny" / "adapters" / "dates"
SOUP_SCRIPT = Path(__file__).parent / "peer_scripts" / "soup_pr.py"
RUNS = 5
# What Soup takes as a title, so that no attack is cut short on one side only.
LONGEST = 256


def ours(texts: Sequence[str]) -> list[str | None]:
    """Our document for each; None where we refuse."""
    return [one(text) for text in texts]


def one(text: str) -> str | None:
    """The document with `text` in every field."""
    evidence = Evidence(
        deltas=(EvalDelta(metric=text, baseline=1.0, candidate=2.0),),
        samples=(SampleChange(prompt=text, baseline_output=text, candidate_output=text),),
        dataset_diff=text,
    )
    try:
        return render.markdown(document(text, "a" * 64, ADAPTER, text, evidence))
    except InputError:
        return None


def soups(texts: Sequence[str]) -> list[str | None]:
    """Soup's; None where it refuses."""
    done = subprocess.run(
        [peers.soup() / "python", SOUP_SCRIPT],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[str | None] = json.loads(done.stdout)
    return found


def lives(hostile: str | None, plain: str | None) -> bool:
    """Whether an attack got through."""
    if hostile is None or plain is None:
        return False
    shown = Page(github_html(hostile))
    if shown.elements != Page(github_html(plain)).elements:
        return True
    try:
        assert_dead(shown.plain)
        assert_nothing_hidden(shown.everything)
    except AssertionError:
        return True
    return False


def through(texts: Sequence[str], write: Callable[[Sequence[str]], list[str | None]]) -> list[str]:
    """The names of the attacks that live."""
    pages = zip(ATTACKS, write(texts), write([harmless(text) for text in texts]), strict=True)
    return [name for name, hostile, plain in pages if lives(hostile, plain)]


def seconds() -> tuple[float, float]:
    """Of one document by each command line, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        shutil.copytree(ADAPTER, place / "candidate")
        rows = [{"metric": f"m{i}", "baseline": 0.5, "candidate": 0.6} for i in range(64)]
        (place / "eval.json").write_text(json.dumps(rows))
        sample = {"prompt": "p" * 500, "baseline_output": "a" * 500, "candidate_output": "b" * 500}
        (place / "samples.json").write_text(json.dumps([sample] * 64))
        given = [
            "pr", "A title", "--base-sha", "a" * 64, "--adapter", "candidate",
            "--eval", "eval.json", "--samples", "samples.json", "--output", "PR.md",
        ]  # fmt: skip
        commands = [
            [sys.executable, "-m", "adapterbot", *given],
            [str(peers.soup() / "soup"), "adapters", *given],
        ]
        taken: list[list[float]] = [[], []]
        for number in range(RUNS + 1):
            for command, times in zip(commands, taken, strict=True):
                started = time.perf_counter()
                subprocess.run(command, cwd=place, check=True, capture_output=True)
                if number:
                    times.append(time.perf_counter() - started)
    return median(taken[0]), median(taken[1])


def measure() -> list[Figure]:
    """Both figures."""
    texts = [text[:LONGEST] for text in ATTACKS.values()]
    mine, theirs = through(texts, ours), through(texts, soups)
    print(f"alive in ours: {', '.join(mine) or 'none'}", file=sys.stderr)
    print(f"alive in Soup's: {', '.join(theirs) or 'none'}", file=sys.stderr)
    fast, slow = seconds()
    return [
        Figure(
            "pr: attacks that live in the document",
            f"{len(texts)} attacks in every field, cmark-gfm and GitHub's allow-list",
            str(len(mine)),
            f"soup adapters pr {len(theirs)}",
            len(mine) / max(len(theirs), 1),
        ),
        Figure(
            "pr: one document, the whole process",
            "64 deltas, 64 samples, the adapter checked and digested by ours only",
            f"{fast * 1000:.0f} ms",
            f"soup adapters pr {slow * 1000:.0f} ms",
            fast / slow,
        ),
    ]
