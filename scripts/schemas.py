"""Writes the JSON Schemas of our file formats to docs/schemas/. `--check` compares only.

They describe what others write or read: report.json, merge.json, an adapter pull request,
adapterbot.yaml and the eval suite. Point an editor at one with
`# yaml-language-server: $schema=…`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from adapterbot.config import Config
from adapterbot.eval.suite_file import json_schema as suite_schema
from adapterbot.records import AdapterPullRequest, Report
from adapterbot.records.merge import MergeRecord

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "schemas"


def schemas() -> dict[str, dict[str, Any]]:
    """File name → schema."""
    return {
        "report-v1.schema.json": Report.model_json_schema(mode="serialization"),
        "adapter-pr-v1.schema.json": AdapterPullRequest.model_json_schema(mode="serialization"),
        "config-v1.schema.json": Config.model_json_schema(),
        "merge-v1.schema.json": MergeRecord.model_json_schema(mode="serialization"),
        "suite-v1.schema.json": suite_schema(),
    }


def main() -> None:
    """Write the schemas, or compare them."""
    for name, schema in schemas().items():
        dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        text = json.dumps({**dialect, **schema}, indent=2, sort_keys=True) + "\n"
        path = FOLDER / name
        if "--check" not in sys.argv[1:]:
            FOLDER.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            raise SystemExit(f"{name} is out of date; run `python -m scripts.schemas`")


if __name__ == "__main__":
    main()
