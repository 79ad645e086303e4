"""Soup's own renderer over the attacks on standard input; Markdown documents on standard output.

Run with the Python of Soup's environment.
"""

import json
import sys

from soup_cli.utils.adapter_pr import build_adapter_pr, render_pr_markdown

documents: list[str | None] = []
for text in json.load(sys.stdin):
    try:
        pull = build_adapter_pr(
            title=text[:256],
            base_sha="a" * 64,
            adapter_path=text,
            dataset_diff=text,
            deltas=[{"metric": text[:256], "baseline": 1.0, "candidate": 2.0}],
            samples=[{"prompt": text, "baseline_output": text, "candidate_output": text}],
        )
    except (TypeError, ValueError):
        documents.append(None)  # refused, which stops an attack as well
        continue
    documents.append(render_pr_markdown(pull))
json.dump(documents, sys.stdout)
