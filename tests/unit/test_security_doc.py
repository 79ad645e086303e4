"""docs/security.md names a test for every attack: each of them is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_every_test_that_the_security_page_names_exists() -> None:
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) > 40
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).is_file()
        or not re.search(rf"^def {name}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE)
    ]
    assert missing == []


def test_every_attack_in_a_table_has_a_test() -> None:
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    tables = page.split("## Text that is shown")[1].split("## What is not protected")[0]
    rows = [
        line for line in tables.splitlines() if line.startswith("| ") and "| Test |" not in line
    ]
    assert rows
    assert [row for row in rows if "::test_" not in row] == []


def test_every_exception_that_a_workflow_is_granted_has_its_reason_beside_it() -> None:
    workflows = [ROOT / "action.yml"]
    for folder in (".github/workflows", "docs/examples"):
        workflows += sorted((ROOT / folder).glob("*.yml"))
    granted = re.compile(r"zizmor: ignore\[[\w,-]+\](.*)")
    reasons = [reason for path in workflows for reason in granted.findall(path.read_text("utf-8"))]
    assert len(reasons) >= 5
    assert [reason for reason in reasons if len(reason.split()) < 2] == []
