"""A repository of several adapters, and changes to it: small, since none of them is evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from adapterbot.changes.sides import Sides, sides
from adapterbot.git.tree import GitTree
from tests.example import commit, git

Change = Callable[[Path], None]


def write(root: Path, path: str, content: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def adapter(root: Path, path: str, weights: str = "") -> None:
    write(root, f"{path}/adapter_config.json", json.dumps({"peft_type": "LORA", "of": path}))
    write(root, f"{path}/adapter_model.safetensors", weights or f"weights of {path}")


def listing(root: Path, *paths: str) -> None:
    entries = "".join(f"  - path: {path}\n    suite: evals/suite.yaml\n" for path in paths)
    write(root, "adapterbot.yaml", f"adapters:\n{entries}")


def build(root: Path) -> Path:
    """Three adapters, each listed, and what they are made from and judged by."""
    git(root, "init", "-q", "-b", "main")
    for path in ("adapters/a", "adapters/b", "teams/x/adapters/c"):
        adapter(root, path)
    listing(root, "adapters/a", "adapters/b", "teams/x/adapters/c")
    write(root, "soup.yaml", "base: ./base\ndata: {train: ./data/train.jsonl}\n")
    write(root, "data/train.jsonl", "{}\n")
    write(root, "base/config.json", "{}")
    write(root, "evals/suite.yaml", "version: 1\n")
    commit(root, "base")
    return root


def change(root: Path, *edits: Change) -> Sides:
    for edit in edits:
        edit(root)
    commit(root, "change")
    trees = [GitTree(root, git(root, "rev-parse", ref)) for ref in ("HEAD~1", "HEAD")]
    return sides(*trees)


def retrain(path: str) -> Change:
    return lambda root: adapter(root, path, "retrained")


def rename(old: str, new: str) -> Change:
    def edit(root: Path) -> None:
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)

    return edit


def delete(path: str) -> Change:
    def edit(root: Path) -> None:
        git(root, "rm", "-rq", path)

    return edit


def behind(root: Path, on_base: Change, here: Change) -> Sides:
    """A branch that does `here` since before its base did `on_base`."""
    git(root, "checkout", "-q", "-b", "branch")
    here(root)
    commit(root, "here")
    git(root, "checkout", "-q", "main")
    on_base(root)
    commit(root, "on the base")
    trees = [GitTree(root, git(root, "rev-parse", ref)) for ref in ("main", "branch", "main~1")]
    return sides(trees[0], trees[1], fork_point=trees[2])
