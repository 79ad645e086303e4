"""Signing without a key: Sigstore certifies for minutes who the job's OIDC token says it is.

Needs `adapterbot[keyless]` and Sigstore's public instance; imported late, since few need it.
"""

from __future__ import annotations

from adapterbot.attest.envelope import NotAttested
from adapterbot.errors import InputError, OurFailure
from adapterbot.importing import extras


def sign(payload: bytes) -> bytes:
    """A Sigstore bundle, JSON, around an in-toto statement.

    Raises:
        InputError: no OIDC token is to be had here.
        OurFailure: sigstore is not installed, or the instance did not answer.
    """
    with extras("keyless", "signing without a key"):
        from sigstore.dsse import Statement
        from sigstore.models import ClientTrustConfig
        from sigstore.oidc import IdentityToken, detect_credential
        from sigstore.sign import SigningContext
    token = detect_credential()
    if token is None:
        raise InputError(
            "there is no OIDC token to sign with",
            field="--keyless",
            fix="give the job `permissions: {id-token: write}`, or sign with --key",
        )
    try:
        context = SigningContext.from_trust_config(ClientTrustConfig.production())
        with context.signer(IdentityToken(token)) as signer:
            return f"{signer.sign_dsse(Statement(payload)).to_json()}\n".encode()
    except Exception as error:  # sigstore, tuf and requests each raise their own
        raise OurFailure(
            f"Sigstore did not sign: {error}", fix="try again, or sign with --key"
        ) from error


def opened(content: bytes, *, identity: str, issuer: str, file: str) -> bytes:
    """The payload of a Sigstore bundle that this identity signed.

    Args:
        identity: as the certificate has it, a workflow's URL for a job of GitHub Actions.
        issuer: of the OIDC token, https://token.actions.githubusercontent.com for those.

    Raises:
        InputError: it is no bundle.
        NotAttested: somebody else signed, or nobody.
        OurFailure: sigstore is not installed, or the instance did not answer.
    """
    with extras("keyless", "signing without a key"):
        from sigstore.errors import VerificationError
        from sigstore.models import Bundle, InvalidBundle
        from sigstore.verify import Verifier
        from sigstore.verify.policy import Identity
    try:
        bundle = Bundle.from_json(content)
    except (InvalidBundle, ValueError) as error:
        raise InputError(
            "is not a Sigstore bundle", file=file, fix="verify with --key, or sign with --keyless"
        ) from error
    # The trusted root comes with the package where the instance cannot be asked.
    verifier = Verifier.production(offline=True)
    try:
        _, payload = verifier.verify_dsse(bundle, Identity(identity=identity, issuer=issuer))
    except VerificationError as error:
        raise NotAttested(
            f"is not signed by {identity}: {error}",
            file=file,
            fix="name the workflow that signs, or sign again",
        ) from error
    return payload
