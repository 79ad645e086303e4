"""Statements as they are written, by the libraries of in-toto."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

from adapterbot.attest.statement import BUILD_TYPE, PREDICATE_TYPE
from adapterbot.importing import extras
from adapterbot.lock.schema import Lock


def statement(
    subjects: Mapping[str, str],
    adapter: str,
    files: Mapping[str, str],
    lock: Lock | None,
    *,
    report: str | None,
    builder: str,
    invocation: str,
    finished: datetime,
) -> bytes:
    """What is claimed, as the canonical JSON of an in-toto Statement v1.

    Args:
        subjects: SHA-256 of the adapter's files, by their name in its directory.
        adapter: its repository path.
        files: SHA-256 of what the run was made from (config, lock, suite and its data), by
            repository path.
        lock: what it pins, if there is one.
        report: SHA-256 of a report of the gate, if one is to be named.
        builder: URI of who trained it, or vouches for it.
        invocation: URI of the run; "" for none.
        finished: when.

    Raises:
        OurFailure: the libraries are not installed.
    """
    with extras("attest", "attesting"):
        from google.protobuf.json_format import MessageToDict
        from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
        from in_toto_attestation.v1.statement import Statement
    metadata = {"finishedOn": finished.isoformat(timespec="seconds")}
    if invocation:
        metadata["invocationId"] = invocation
    details: dict[str, object] = {"builder": {"id": builder}, "metadata": metadata}
    if report:
        details["byproducts"] = [{"name": "report.json", "digest": {"sha256": report}}]
    provenance = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"adapter": adapter},
            "resolvedDependencies": [
                *({"name": name, "digest": {"sha256": d}} for name, d in sorted(files.items())),
                *_pinned(lock),
            ],
        },
        "runDetails": details,
    }
    about = [
        ResourceDescriptor(name=name, digest={"sha256": digest}).pb
        for name, digest in sorted(subjects.items())
    ]
    made = Statement(about, PREDICATE_TYPE, provenance)
    made.validate()
    return json.dumps(MessageToDict(made.pb), sort_keys=True, ensure_ascii=False).encode()


def _pinned(lock: Lock | None) -> list[dict[str, object]]:
    """What the lock pins: base model, data and environment, by the hashes that it has."""
    if lock is None:
        return []
    hashes = {
        f"base model {lock.base_model}": lock.base_model_sha,
        "dataset": lock.dataset_sha,
        "environment": lock.env_hash,
    }
    return [{"name": name, "digest": {"sha256": digest}} for name, digest in hashes.items()]
