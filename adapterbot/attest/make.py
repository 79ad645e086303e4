"""Statements as they are written, by the libraries of in-toto."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from adapterbot.attest.statement import BUILD_TYPE, PREDICATE_TYPE
from adapterbot.importing import extras
from adapterbot.lock.schema import Lock


@dataclass(frozen=True)
class Claim:
    """What a statement says.

    Attributes:
        subjects: SHA-256 of the adapter's files, by their name in its directory.
        adapter: its repository path.
        files: SHA-256 of what the run was made from (config, lock, suite and its data), by
            repository path.
        lock: what it pins, if there is one.
        report: SHA-256 of a report of the gate, if one is to be named.
        builder: URI of who trained it, or vouches for it.
        invocation: URI of the run; "" for none.
        finished: when.
    """

    subjects: Mapping[str, str]
    adapter: str
    files: Mapping[str, str]
    lock: Lock | None
    report: str | None
    builder: str
    invocation: str
    finished: datetime


def statement(claim: Claim) -> bytes:
    """A claim as the canonical JSON of an in-toto Statement v1.

    Raises:
        OurFailure: the libraries are not installed.
    """
    with extras("attest", "attesting"):
        from google.protobuf.json_format import MessageToDict
        from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
        from in_toto_attestation.v1.statement import Statement
    subjects = [
        ResourceDescriptor(name=name, digest={"sha256": digest}).pb
        for name, digest in sorted(claim.subjects.items())
    ]
    made = Statement(subjects, PREDICATE_TYPE, _provenance(claim))
    made.validate()
    return json.dumps(MessageToDict(made.pb), sort_keys=True, ensure_ascii=False).encode()


def _provenance(claim: Claim) -> dict[str, object]:
    metadata = {"finishedOn": claim.finished.isoformat(timespec="seconds")}
    if claim.invocation:
        metadata["invocationId"] = claim.invocation
    details: dict[str, object] = {"builder": {"id": claim.builder}, "metadata": metadata}
    if claim.report:
        details["byproducts"] = [{"name": "report.json", "digest": {"sha256": claim.report}}]
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"adapter": claim.adapter},
            "resolvedDependencies": [
                *({"name": n, "digest": {"sha256": d}} for n, d in sorted(claim.files.items())),
                *_pinned(claim.lock),
            ],
        },
        "runDetails": details,
    }


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
