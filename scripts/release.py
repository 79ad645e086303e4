"""Checks that a tag may be released, and prints its notes: `python scripts/release.py v1.2.3`.

The version is `adapterbot.__version__` and stands nowhere else; the notes are the tag's part of
CHANGELOG.md.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def version() -> str:
    """The version in `adapterbot/__init__.py`, read and not imported."""
    text = (ROOT / "adapterbot" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise SystemExit("adapterbot/__init__.py: has no __version__")
    return match[1]


def notes(changelog: str, wanted: str) -> str:
    """The part of the changelog about one version, which begins with `## VERSION`."""
    parts = re.split(r"(?m)^## ", changelog)[1:]
    for part in parts:
        head, _, body = part.partition("\n")
        if head.split()[:1] == [wanted]:
            return body.strip()
    raise SystemExit(f"CHANGELOG.md: has no part `## {wanted}`; write what users should know")


def main(tag: str) -> None:
    """Print the notes of a tag.

    Raises:
        SystemExit: it is not vX.Y.Z, not the version of the code, or without notes.
    """
    if not re.fullmatch(r"v\d+\.\d+\.\d+", tag):
        raise SystemExit(f"{tag!r} is not a tag like v1.2.3")
    if tag != f"v{version()}":
        raise SystemExit(f"the tag is {tag} and the code says {version()}; set __version__ first")
    print(notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version()))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
