"""What a change would leave behind that no later gate could read: only the change's own doing."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from adapterbot.changes.sides import sides
from adapterbot.git.tree import GitTree
from adapterbot.judging import grounds
from adapterbot.judging.grounds import left_behind
from tests.example import commit, git
from tests.processes import needs_proc
from tests.programs import python

SUITE = "version: 1\ntasks:\n  - {name: a, data: rows.jsonl, scorer: exact, margin: 0.1}\n"
CONFIG = "adapters: [{path: one}]\n"


def write(root: Path, files: dict[str, str | None]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.unlink()
        else:
            path.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "main")
    write(
        tmp_path,
        {
            "one/adapter_config.json": "{}",
            "evals/suite.yaml": SUITE,
            "evals/rows.jsonl": '{"prompt": "a", "expected": "b"}\n',
        },
    )
    return tmp_path


def error_of(root: Path, before: dict[str, str | None], after: dict[str, str | None]) -> str:
    write(root, before)
    commit(root, "base")
    write(root, after)
    commit(root, "head")
    trees = [GitTree(root, git(root, "rev-parse", ref)) for ref in ("HEAD~1", "HEAD")]
    found = left_behind(sides(*trees))
    return str(found) if found else ""


@pytest.mark.parametrize("config", [{}, {"adapterbot.yaml": CONFIG}])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"evals/suite.yaml": SUITE.replace("exact", "exakt")}, "'exakt' is not a scorer"),
        ({"evals/rows.jsonl": "{"}, "evals/rows.jsonl"),
        ({"evals/rows.jsonl": None}, "evals/rows.jsonl"),
        ({"adapterbot.yaml": "adapters: []\n"}, "adapterbot.yaml: adapters: "),
        ({"adapterbot.yaml": CONFIG.replace("}", ", suite: evals/siute.yaml}")}, "siute.yaml"),
        ({"adapterbot.yaml": CONFIG + "# more\n", "evals/suite.yaml": SUITE + "# more\n"}, ""),
        ({"notes.md": "words"}, ""),
    ],
)
def test_what_a_change_breaks_is_named(root, config, change, says):
    told = error_of(root, config, change)
    assert says in told
    assert bool(told) == bool(says)
    assert not told or "once this is merged" in told


def test_what_was_broken_before_is_not_this_changes_doing(root):
    broken: dict[str, str | None] = {"adapterbot.yaml": CONFIG, "evals/suite.yaml": "nothing"}
    assert error_of(root, broken, {"one/README.md": "words"}) == ""


def test_what_both_commits_have_is_not_read(root):
    write(root, {"evals/video.bin": random.Random(1).randbytes(10_000).hex()})
    name = git(root, "hash-object", "evals/video.bin")
    commit(root, "base")
    write(root, {"one/README.md": "words"})
    commit(root, "head")
    kept = root / ".git" / "objects" / name[:2] / name[2:]
    kept.chmod(0o644)
    kept.write_bytes(kept.read_bytes()[:1000])  # its size can be read, and not it
    trees = [GitTree(root, git(root, "rev-parse", ref)) for ref in ("HEAD~1", "HEAD")]
    assert left_behind(sides(*trees)) is None


def test_a_repository_without_a_suite_may_go_on_without_one(root):
    missing: dict[str, str | None] = {"evals/suite.yaml": None, "evals/rows.jsonl": None}
    assert error_of(root, missing, {"one/README.md": "words"}) == ""


def test_the_last_adapter_may_go(root):
    assert error_of(root, {}, {"one/adapter_config.json": None}) == ""


def test_a_second_adapter_needs_a_configuration(root):
    told = error_of(root, {}, {"two/adapter_config.json": "{}"})
    assert "holds 2 adapters (one, two) and no adapterbot.yaml" in told


def test_a_branch_that_is_behind_is_not_told_of_what_its_base_has_mended(root):
    write(root, {"adapterbot.yaml": "broken: true\n"})
    commit(root, "broken")
    fork = git(root, "rev-parse", "HEAD")
    write(root, {"notes.md": "words"})
    commit(root, "head")
    head = git(root, "rev-parse", "HEAD")
    git(root, "checkout", "-q", fork)
    write(root, {"adapterbot.yaml": CONFIG})
    commit(root, "mended")
    base = git(root, "rev-parse", "HEAD")
    trees = [GitTree(root, commit) for commit in (base, head, fork)]
    assert left_behind(sides(trees[0], trees[1], fork_point=trees[2])) is None


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ prompt }}?", ""),
        ("{{ promt }}?", "'promt' is undefined"),
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "longer",
        ),
        ("{{ 'a' * 99999999999 }}", "template"),
    ],
)
def test_attack_a_template_of_the_head_neither_hangs_the_gate_nor_fills_its_memory(
    root, monkeypatch, template, says
):
    monkeypatch.setattr(grounds, "LOOK", 3.0)
    suite = SUITE.replace("margin", f"template: {json.dumps(template)}, margin")
    told = error_of(root, {}, {"evals/suite.yaml": suite})
    assert (says in told, bool(told)) == (True, bool(says))


@needs_proc
def test_a_template_is_rendered_where_the_system_has_limits_of_its_own():
    """A login node's `ulimit -t`: it cannot be raised, and need not be."""
    script = (
        "import resource\n"
        "from adapterbot.eval.chat import render_apart\n"
        "for kind, most in ((resource.RLIMIT_CPU, 15), (resource.RLIMIT_AS, 1 << 30)):\n"
        "    resource.setrlimit(kind, (most, most))\n"
        "print(render_apart(str.upper, ['a'], 20.0))\n"
    )
    done = python("-c", script)
    assert done.stdout == "(['A'], '')\n", done
