"""Signing without a key: Sigstore certifies for minutes who the job's OIDC token says it is.

Needs `adapterbot[keyless]` and a Sigstore instance, the public one or your own; imported late,
since few need it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from adapterbot.attest.envelope import PAYLOAD_TYPE, NotAttested, not_in_toto
from adapterbot.config import Workflow
from adapterbot.errors import InputError, OurFailure
from adapterbot.files.validation import bad_input
from adapterbot.importing import extras

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig
    from sigstore.verify.policy import VerificationPolicy

_BUNDLE = "application/vnd.dev.sigstore.bundle"
_PURPOSE = "signing without a key"
_PERMIT = "give the job `permissions: {id-token: write}`, or sign with --key"


@dataclass(frozen=True)
class Trust:
    """The client trust config of a Sigstore instance of your own: its JSON, and where it lies."""

    text: str
    file: str


def is_bundle(content: bytes) -> bool:
    """Whether a stranger's file says that it is a Sigstore bundle."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and str(found.get("mediaType", "")).startswith(_BUNDLE)


def sign(payload: bytes, trust: Trust | None = None) -> bytes:
    """A Sigstore bundle, JSON, around an in-toto statement.

    Args:
        trust: an instance of your own; None is the public one.

    Raises:
        InputError: no OIDC token is to be had here, or the trust config is none.
        OurFailure: sigstore is not installed, or the instance did not answer.
    """
    with extras("keyless", _PURPOSE):
        from sigstore.dsse import Statement
        from sigstore.oidc import IdentityError, IdentityToken, detect_credential
        from sigstore.sign import SigningContext
    config = _config(trust) if trust else None
    try:
        token = detect_credential()
    except IdentityError as error:
        raise InputError(
            f"there is no OIDC token to sign with: {error}", field="--keyless", fix=_PERMIT
        ) from error
    if token is None:
        raise InputError("there is no OIDC token to sign with", field="--keyless", fix=_PERMIT)
    try:
        context = SigningContext.from_trust_config(config or _public())
        with context.signer(IdentityToken(token)) as signer:
            return f"{signer.sign_dsse(Statement(payload)).to_json()}\n".encode()
    except Exception as error:  # sigstore, tuf and requests each raise their own
        raise OurFailure(
            f"Sigstore did not sign: {str(error) or repr(error)}",
            fix="try again, or sign with --key",
        ) from error


def opened(content: bytes, signer: Workflow, *, file: str, trust: Trust | None = None) -> bytes:
    """The in-toto statement in a Sigstore bundle that this workflow signed.

    Args:
        trust: an instance of your own; None is the public one.

    Raises:
        InputError: it is no bundle of an in-toto statement, or the trust config is none.
        NotAttested: somebody else signed, or nobody.
        OurFailure: sigstore is not installed.
    """
    with extras("keyless", _PURPOSE):
        from sigstore.errors import Error
        from sigstore.models import Bundle
        from sigstore.verify import Verifier
        from sigstore.verify.policy import AllOf, Identity, OIDCSourceRepositoryURI
    # The trusted root of the public instance comes with the package.
    config = _config(trust) if trust else _public(offline=True)
    try:
        bundle = Bundle.from_json(content)
    except Exception as error:  # a stranger wrote it: also cryptography has its own for what is odd
        raise InputError(
            "is not a Sigstore bundle", file=file, fix="verify with --key, or sign with --keyless"
        ) from error
    wanted: list[VerificationPolicy] = [Identity(identity=signer.identity, issuer=signer.issuer)]
    if signer.ran_in:
        wanted.append(OIDCSourceRepositoryURI(signer.ran_in))
    verifier = Verifier(trusted_root=config.trusted_root)
    try:
        payload_type, payload = verifier.verify_dsse(bundle, AllOf(wanted))
    except Error as error:
        raise NotAttested(
            f"is not signed by {signer.identity}: {error}",
            file=file,
            fix="name the workflow that signs, and the repository that runs it, or sign again",
        ) from error
    if payload_type != PAYLOAD_TYPE:
        raise not_in_toto(file)
    return payload


def _public(*, offline: bool = False) -> ClientTrustConfig:
    from sigstore.models import ClientTrustConfig

    return ClientTrustConfig.production(offline=offline)


def _config(trust: Trust) -> ClientTrustConfig:
    from sigstore.errors import Error
    from sigstore.models import ClientTrustConfig

    fix = "name the client trust config that your Sigstore instance publishes"
    try:
        config = ClientTrustConfig.from_json(trust.text)
        # Both are read here, so that a wrong file is told before anything is signed.
        _ = config.trusted_root, config.signing_config
    except ValidationError as error:
        raise bad_input(error, file=trust.file, fix=fix) from error
    except (ValueError, Error) as error:
        raise InputError(f"is no client trust config: {error}", file=trust.file, fix=fix) from error
    return config
