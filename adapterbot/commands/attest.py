"""`adapterbot attest …`: what it reads, signs, verifies and writes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from adapterbot import lock
from adapterbot.attest import bom, envelope, keyless, verification
from adapterbot.attest import statement as statements
from adapterbot.attest.make import statement
from adapterbot.bank.portable import read_portable
from adapterbot.changes.conventions import for_adapter
from adapterbot.changes.sides import config_of
from adapterbot.commands.place import checkout, named_file
from adapterbot.commands.report_files import read_report
from adapterbot.commands.report_size import MAX_REPORT_BYTES
from adapterbot.commands.spared import spare
from adapterbot.config import AdapterConfig, Workflow
from adapterbot.context import server_url
from adapterbot.errors import InputError
from adapterbot.eval.suite import suite_files
from adapterbot.files import atomic
from adapterbot.files.named import read_named
from adapterbot.files.paths import normalise
from adapterbot.files.tree import WorkTree
from adapterbot.files.validation import first_problem
from adapterbot.judging.subjects import digest_at
from adapterbot.lock.check import other_weights
from adapterbot.lock.schema import MAX_LOCK_BYTES, Lock
from adapterbot.pr.inputs import about_these
from adapterbot.records import AdapterReport

BY_HAND = "urn:adapterbot:by-hand"
_LIMIT = 1024 * 1024


@dataclass(frozen=True)
class Subject:
    """An adapter in a checkout, with what it was made from."""

    tree: WorkTree
    adapter: AdapterConfig

    @property
    def path(self) -> str:
        """Its repository path."""
        return normalise(self.adapter.path)

    @property
    def lock(self) -> Lock | None:
        """Its lock, if it has one.

        Raises:
            InputError: a lock that is broken.
        """
        name = self.adapter.lock
        if not self.tree.has(name):
            return None
        return lock.loads(self.tree.read(name, limit=MAX_LOCK_BYTES), name)

    def made_from(self) -> dict[str, str]:
        """SHA-256 of the training config, the lock, and the suite with its data, by path.

        Raises:
            InputError: one of them is broken.
        """
        suite = normalise(self.adapter.suite)
        own = (normalise(self.adapter.config), normalise(self.adapter.lock))
        names = {name for name in own if self.tree.has(name)}
        if self.tree.has(suite):
            names |= {suite, *suite_files(self.tree, suite)}
        return {name: self.tree.sha256(name) for name in sorted(names)}

    def spare(self, output: Path, *needed: Path | None) -> None:
        """Refuses to write over what is signed for or described, or what that takes.

        Raises:
            InputError: naming `output`.
        """
        own, adapter = verification.attestation_path(self.path), self.adapter
        names = [name for name in self.tree.files(self.path) if name != own]
        names += map(normalise, (adapter.lock, adapter.config, adapter.suite))
        here = (self.tree.root / name for name in names)
        spare(output, *here, *needed, field="--output, -o")


@dataclass(frozen=True)
class Verified:
    """What an adapter was held against, successfully.

    Attributes:
        lock: the repository path of its lock, which is the one that was signed for; None: it has
            none, and none was signed for.
        changed: of what it was made from, by the statement, the files that are others here.
    """

    statement: statements.Statement
    lock: str | None
    changed: frozenset[str]


def subject(path: Path) -> Subject:
    """The adapter at a path on disk, as the repository's configuration knows it.

    Raises:
        InputError: there is none, it lies in no checkout, or the configuration is broken.
    """
    root = checkout()
    tree, name = named_file(path, root)
    if tree.root != root:
        raise InputError("lies outside of this repository", file=str(path), fix="name one in it")
    if not tree.has(name):
        raise InputError(
            f"does not exist in {tree.label}", file=str(path), fix="name an adapter directory"
        )
    return Subject(tree, for_adapter(config_of(tree), name, tree.survey()))


def _key(path: Path) -> bytes:
    return read_named(path, limit=_LIMIT, fix="name a key in PEM")


def _trust(path: Path | None) -> keyless.Trust | None:
    if path is None:
        return None
    content = read_named(path, limit=_LIMIT, fix="name a client trust config")
    text = content.decode("utf-8", "replace")
    return keyless.Trust(text, str(path))


def workflow(identity: str, issuer: str, repository: str | None) -> Workflow:
    """A workflow as options name it.

    Raises:
        InputError: one of them cannot be.
    """
    try:
        return Workflow(identity=identity, issuer=issuer, repository=repository)
    except ValidationError as error:
        field, message = first_problem(error)
        raise InputError(message, field=f"--{field}", fix="write its whole URL") from error


def sign(
    of: Subject,
    key: Path | None,
    *,
    trust: Path | None = None,
    report: Path | None,
    output: Path | None,
    builder: str | None,
) -> Path:
    """Sign for an adapter, and write the attestation.

    Args:
        key: a private key, PEM; None signs with Sigstore.
        trust: the client trust config of a Sigstore instance; the public one when None.
        output: where to write it; beside the adapter when None.
        builder: URI of who built it; the workflow that runs, when None.

    Raises:
        AdapterbotError: something that it names cannot be read, the report or the lock is about
            other weights, or nothing can be signed here.
    """
    _refuse_no_adapter(of)
    if output:
        of.spare(output, key, trust, report)
    if report:
        _judged(of, report)
    _refuse_anothers_lock(of)
    payload = statement(
        verification.subject_digests(of.tree, of.path),
        of.path,
        of.made_from(),
        of.lock,
        report=_report_digest(report) if report else None,
        builder=builder or _workflow(os.environ) or BY_HAND,
        invocation=_run(os.environ),
        finished=datetime.now(UTC),
    )
    if key:
        signed = envelope.sign(payload, _key(key), file=str(key))
    else:
        signed = keyless.sign(payload, _trust(trust))
    place = output or of.tree.root / verification.attestation_path(of.path)
    atomic.write_bytes(place, signed)
    return place


def _refuse_no_adapter(of: Subject) -> None:
    """What is signed for is something that people load."""
    if of.tree.files(of.path) != (of.path,):
        digest_at(of.tree, of.path)
    elif of.adapter.is_bank:
        read_portable(of.tree.on_disk(of.path), shown=of.path)
    else:
        raise InputError("is no adapter", file=of.path, fix="name an adapter directory")


def _refuse_anothers_lock(of: Subject) -> None:
    """Whoever signs, or writes a bill, says that the adapter was made from what its lock pins."""
    lock_path = normalise(of.adapter.lock)
    if not of.tree.has(lock_path):
        return
    moved = other_weights(of.tree, lock_path, normalise(of.adapter.config), of.path)
    if moved:
        raise InputError(
            moved,
            file=lock_path,
            fix="run `adapterbot lock write` after the training, with an --adapter for each that "
            "it gave, then this again; another training has a lock of its own",
        )


def verify(
    of: Subject,
    signer: Path | Workflow,
    *,
    trust: Path | None = None,
    report: Path | None,
) -> Verified:
    """Hold an adapter against its attestation.

    Args:
        signer: a public key, PEM, or the workflow that signed a Sigstore bundle.
        trust: the client trust config of a Sigstore instance; the public one when None.
        report: a report that must be the one that was signed for.

    Raises:
        NotAttested: it is not what was signed for.
        AdapterbotError: something cannot be read.
    """
    path, lock_path = verification.attestation_path(of.path), normalise(of.adapter.lock)
    if isinstance(signer, Path):
        keys = (_key(signer).decode("utf-8", "replace"),)
        envelope.public_key(keys[0], file=str(signer))
        found = verification.check(of.tree, of.path, keys, lock=lock_path)
    else:
        content = verification.attestation(of.tree, of.path)
        payload = keyless.opened(content, signer, file=path, trust=_trust(trust))
        found = statements.read_statement(payload, file=path)
        verification.hold(found, of.tree, of.path, lock=lock_path)
    if report:
        named = {thing.digest.sha256 for thing in found.predicate.run.byproducts}
        if _report_digest(report) not in named:
            raise envelope.NotAttested(
                f"is not about {report}", file=path, fix="sign again with --report"
            )
    return Verified(found, lock_path if of.tree.has(lock_path) else None, _changed(of, found))


def _changed(of: Subject, statement: statements.Statement) -> frozenset[str]:
    return frozenset(
        thing.name
        for thing in statement.predicate.build.dependencies
        if _sha256(of, thing.name) not in (None, thing.digest.sha256)
    )


def _sha256(of: Subject, name: str) -> str | None:
    """The digest of a file by its repository path; None where there is no such file."""
    try:
        return of.tree.sha256(name) if of.tree.has(name) else None
    except InputError:
        return None  # what a statement calls `dataset` may be the name of a folder


def bill(of: Subject, report: Path | None) -> str:
    """The CycloneDX document of an adapter.

    Raises:
        AdapterbotError: something that it names cannot be read, or the report is about others.
    """
    _refuse_no_adapter(of)
    _refuse_anothers_lock(of)
    judged = _judged(of, report) if report else None
    return bom.bill(of.path, verification.subject_digests(of.tree, of.path), of.lock, judged)


def _judged(of: Subject, report: Path) -> AdapterReport:
    """What a report says of an adapter as it is now."""
    adapters = read_report(report).adapters
    judged = next((one for one in adapters if one.key == of.adapter.key), None)
    if judged is None:
        raise InputError(
            f"says nothing of {of.path}",
            file=str(report),
            field="adapters",
            fix="gate this adapter, or pass the report that is about it",
        )
    about_these(judged, digest_at(of.tree, of.path), file=report)
    return judged


def _report_digest(report: Path) -> str:
    content = read_named(report, limit=MAX_REPORT_BYTES, fix="name a report.json")
    return hashlib.sha256(content).hexdigest()


def _workflow(environment: Mapping[str, str]) -> str:
    named = environment.get("GITHUB_WORKFLOW_REF", "")
    return f"{server_url(environment)}/{named}" if named else ""


def _run(environment: Mapping[str, str]) -> str:
    run = environment.get("GITHUB_RUN_ID", "")
    if not run:
        return ""
    attempt = environment.get("GITHUB_RUN_ATTEMPT", "1")
    repository = environment.get("GITHUB_REPOSITORY", "")
    return f"{server_url(environment)}/{repository}/actions/runs/{run}/attempts/{attempt}"
