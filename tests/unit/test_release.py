"""A release is made of one version, and says what is in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adapterbot import __version__
from scripts.release import main, notes, version

ROOT = Path(__file__).resolve().parents[2]
CHANGELOG = """# Changelog

## Unreleased

- b

## 1.2.0 (2026-01-02)

### Added

- a

## 1.1.0

- old
"""


def test_the_version_stands_once() -> None:
    assert version() == __version__
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()
    for name in ("action.yml", "Dockerfile", "pyproject.toml"):
        assert not re.search(
            rf"(?<![\d.]){re.escape(__version__)}(?![\d.])", (ROOT / name).read_text()
        )


def test_the_notes_are_the_versions_own_part() -> None:
    assert notes(CHANGELOG, "1.2.0") == "### Added\n\n- a"
    with pytest.raises(SystemExit, match=r"no part `## 1\.3\.0`"):
        notes(CHANGELOG, "1.3.0")


@pytest.mark.parametrize("tag", ["v1", "1.2.3", "v1.2.3-rc1", "v0.0.0"])
def test_only_the_codes_own_version_is_released(tag: str) -> None:
    with pytest.raises(SystemExit):
        main(tag)
