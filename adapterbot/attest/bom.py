"""A CycloneDX ML-BOM entry for an adapter: what it is, made from what, and how it was judged.

https://cyclonedx.org/capabilities/mlbom/ The document is cyclonedx-python-lib's; its model card,
which that library does not know yet, is ours, in the shape of the specification's schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from adapterbot.importing import extras
from adapterbot.lock.schema import Lock
from adapterbot.records import AdapterReport


def bill(
    adapter: str,
    digests: Mapping[str, str],
    lock: Lock | None,
    report: AdapterReport | None,
) -> str:
    """A CycloneDX 1.6 document, JSON, with the adapter as its subject.

    Args:
        adapter: repository path of the directory.
        digests: SHA-256 of its files, by name.
        report: what the gate said of it, for the model card.

    Raises:
        OurFailure: the library is not installed.
    """
    with extras("attest", "attesting"):
        from cyclonedx.model import HashAlgorithm, HashType
        from cyclonedx.model.bom import Bom
        from cyclonedx.model.component import Component, ComponentType
        from cyclonedx.output.json import JsonV1Dot6

    def hashed(digest: str) -> list[HashType]:
        return [HashType(alg=HashAlgorithm.SHA_256, content=digest)]

    model = Component(
        name=adapter,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="adapter",
        components=[
            Component(name=name, type=ComponentType.FILE, bom_ref=name, hashes=hashed(digest))
            for name, digest in sorted(digests.items())
        ],
    )
    made = Bom()
    made.metadata.component = model
    if lock is not None:
        base = Component(
            name=lock.base_model,
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref="base",
            hashes=hashed(lock.base_model_sha),
        )
        data = Component(
            name="training data",
            type=ComponentType.DATA,
            bom_ref="data",
            hashes=hashed(lock.dataset_sha),
        )
        for part in (base, data):
            made.components.add(part)
        made.register_dependency(model, [base, data])
    document: dict[str, Any] = json.loads(JsonV1Dot6(made).output_as_string())
    document["metadata"]["component"]["modelCard"] = _card(lock, report)
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _card(lock: Lock | None, report: AdapterReport | None) -> dict[str, Any]:
    card: dict[str, Any] = {"modelParameters": {"approach": {"type": "supervised"}}}
    if lock is not None:
        card["modelParameters"]["datasets"] = [{"ref": "data"}]
    if report is not None:
        card["quantitativeAnalysis"] = {
            "performanceMetrics": [
                {
                    "type": metric.delta.scorer,
                    "value": str(metric.delta.candidate),
                    "slice": metric.delta.task,
                }
                for metric in report.metrics
                if metric.delta.slice is None and metric.delta.candidate is not None
            ]
        }
    return card
