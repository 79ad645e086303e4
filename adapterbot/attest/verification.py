"""Whether an adapter is the one that somebody signed for: the gate's side, torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from adapterbot.attest import envelope, keyless
from adapterbot.attest.envelope import NotAttested
from adapterbot.attest.statement import Statement, read_statement
from adapterbot.changes.conventions import EXPERTS_FOLDER, MIXTURE_CONFIG
from adapterbot.config import Workflow
from adapterbot.errors import InputError
from adapterbot.files.tree import Tree, WorkTree
from adapterbot.git.checkout import ignored_files
from adapterbot.weights.peft_dir import CONFIG_NAME

_LIMIT = 4 * 1024 * 1024
_SUFFIX = ".intoto.json"
# What decides how an adapter behaves; a README that nobody signed for decides nothing.
_DECISIVE = (".safetensors", ".bin", ".pt")
_CONFIGS = (CONFIG_NAME, MIXTURE_CONFIG)


def attestation_path(adapter: str) -> str:
    """Where an adapter's attestation lies: beside the adapter, so that it is no part of itself."""
    return f"{adapter}{_SUFFIX}"


def subject_digests(tree: Tree, adapter: str) -> dict[str, str]:
    """SHA-256 of every file of an adapter, by its name in the directory; of a bank, of the file.

    What a run leaves there and Git ignores (checkpoints, `.DS_Store`) is in no other checkout; it
    is no part of the adapter, unless people would load it. Nor is the attestation of an adapter at
    the root, which lies in it.

    Raises:
        InputError: there is no such adapter, or a file of it cannot be read.
    """
    names = tree.files(adapter) if tree.has(adapter) else ()
    if not names:
        raise InputError(
            f"does not exist in {tree.label}", file=adapter, fix="name an adapter directory"
        )
    inside = {_inside(name, adapter): name for name in names if name != attestation_path(adapter)}
    if isinstance(tree, WorkTree) and names != (adapter,):
        held = MIXTURE_CONFIG in inside
        for name in ignored_files(tree.root, adapter):
            loaded = "/" not in name or (held and name.startswith(f"{EXPERTS_FOLDER}/"))
            if not (loaded and _is_decisive(name)):
                inside.pop(name, None)
    return {name: tree.sha256(path) for name, path in inside.items()}


def _inside(name: str, adapter: str) -> str:
    if name == adapter:
        return PurePosixPath(name).name
    return name.removeprefix(f"{adapter}/") if adapter else name


def _is_decisive(name: str) -> bool:
    return PurePosixPath(name).name in _CONFIGS or name.endswith(_DECISIVE)


def check(
    tree: Tree,
    adapter: str,
    signers: Sequence[str | Workflow],
    *,
    lock: str | None = None,
    policy: Tree | None = None,
) -> Statement:
    """Hold an adapter against its attestation.

    Args:
        adapter: repository path of its directory.
        signers: public keys, PEM, and workflows; one of them must have signed.
        lock: repository path of its lock, which must be the one that was signed for.
        policy: where the signers' trust configs lie; `tree` when None.

    Raises:
        NotAttested: there is no attestation, none of the signers signed it, or a file is not the
            one that was signed for.
        InputError: the attestation, or a trust config, is none.
        OurFailure: sigstore is not installed, and a workflow signed.
    """
    path = attestation_path(adapter)
    # A key that is none is told whether anybody signed or not.
    for index, signer in enumerate(signers):
        if isinstance(signer, str):
            envelope.public_key(signer, file="adapterbot.yaml", field=f"attested_by[{index}]")
    content = attestation(tree, adapter)
    if keyless.is_bundle(content):
        workflows = [one for one in signers if isinstance(one, Workflow)]
        payload = _opened_bundle(content, workflows, policy or tree, file=path)
    else:
        keys = [one for one in signers if isinstance(one, str)]
        payload = envelope.opened(content, keys, file=path)
    statement = read_statement(payload, file=path)
    hold(statement, tree, adapter, lock=lock)
    return statement


def _opened_bundle(
    content: bytes, workflows: Sequence[Workflow], policy: Tree, *, file: str
) -> bytes:
    refused = NotAttested(
        "is not signed by a workflow that is trusted here",
        file=file,
        fix="sign in the workflow that the policy names",
    )
    for one in workflows:
        trust = None
        if one.trust_config:
            text = policy.read(one.trust_config, limit=_LIMIT).decode("utf-8", "replace")
            trust = keyless.Trust(text, one.trust_config)
        try:
            return keyless.opened(content, one, file=file, trust=trust)
        except NotAttested as error:
            refused = error
    raise refused


def attestation(tree: Tree, adapter: str) -> bytes:
    """What lies beside an adapter as its attestation; a stranger may have written it.

    Raises:
        NotAttested: nothing does.
        InputError: it is too large to be one.
    """
    path = attestation_path(adapter)
    if not tree.has(path):
        raise NotAttested(
            f"does not exist in {tree.label}: nobody signed for this adapter",
            file=path,
            fix=f"run `adapterbot attest sign {adapter or '.'} --key …` where it is trained",
        )
    return tree.read(path, limit=_LIMIT)


def hold(statement: Statement, tree: Tree, adapter: str, *, lock: str | None = None) -> None:
    """Hold an adapter against a statement whose signature was verified.

    Raises:
        NotAttested: it is about another adapter, or a file is not the one that was signed for.
    """
    path = attestation_path(adapter)
    # Who signed for one adapter did not sign for it in the place of another.
    named = statement.predicate.build.parameters.adapter
    if named != adapter:
        raise NotAttested(
            f"is about {named}" if named else "does not say which adapter it is about",
            file=path,
            fix="sign for the adapter where it is now, with `adapterbot attest sign`",
        )
    _compare(statement, subject_digests(tree, adapter), file=path)
    if lock is not None:
        _compare_lock(statement, tree, lock, file=path)


def _compare_lock(statement: Statement, tree: Tree, lock: str, *, file: str) -> None:
    """Hold a lock against what a statement says of it."""
    signed = {d.name: d.digest.sha256 for d in statement.predicate.build.dependencies}
    found = tree.sha256(lock) if tree.has(lock) else None
    if signed.get(lock) == found:
        return
    if lock not in signed:
        what = f"says nothing about {lock}"
    else:
        what = f"is about another {lock}" if found else f"is about {lock}, which is missing"
    raise NotAttested(
        what, file=file, fix="restore it, or sign again after `adapterbot lock write`"
    )


def _compare(statement: Statement, found: Mapping[str, str], *, file: str) -> None:
    """Hold the files of an adapter against the subjects of a statement.

    Args:
        found: SHA-256 by name in the adapter's directory.
    """
    signed = {subject.name: subject.digest.sha256 for subject in statement.subject}
    for name, digest in sorted(signed.items()):
        if found.get(name) != digest:
            what = "was changed since" if name in found else "is missing"
            raise NotAttested(
                f"{name} {what}", file=file, fix="sign the adapter that is meant, or restore it"
            )
    for name in sorted(found.keys() - signed.keys()):
        if _is_decisive(name):
            raise NotAttested(
                f"says nothing about {name}", file=file, fix="sign again, or remove the file"
            )
