"""Holds the manifests of docs/examples/kubernetes against Kubernetes' own schemas.

A chart's values and a custom resource have no schema here; the pods in them have.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

_OWN = {"v1", "apps/v1"}


def pods(content: object) -> Iterator[dict[str, Any]]:
    """Every pod's spec below `content`: what lists containers, also in a text of a ConfigMap."""
    if isinstance(content, dict):
        if isinstance(content.get("containers"), list):
            yield content
        for inner in content.values():
            yield from pods(inner)
    elif isinstance(content, list):
        for inner in content:
            yield from pods(inner)
    elif isinstance(content, str) and "\n" in content:
        yield from pods(yaml.safe_load(content))


def main(paths: list[str]) -> None:
    """Validate each file; the first that is wrong ends the run."""
    version = kubernetes_validate.latest_version()
    for path in paths:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        whole = [document] if document.get("apiVersion") in _OWN else []
        found = [
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
            for spec in pods(document)
        ]
        if not whole + found:
            raise SystemExit(f"{path}: holds nothing that Kubernetes describes")
        for manifest in whole + found:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                where = "/".join(map(str, error.path))
                raise SystemExit(f"{path}: {manifest['kind']}: {where}: {error.message}") from error


if __name__ == "__main__":
    main(sys.argv[1:])
