"""DSSE envelopes (https://github.com/secure-systems-lab/dsse), signed with a key in a PEM file.

Ed25519, ECDSA and RSA keys, by securesystemslib. An envelope is a stranger's file until it is
verified.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adapterbot.errors import InputError

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_SIGN_AGAIN = "sign it again with `adapterbot attest sign`"


class NotAttested(InputError):
    """The adapter is not what somebody trusted signed for."""


def sign(payload: bytes, key: bytes, *, file: str) -> bytes:
    """An envelope around an in-toto statement.

    Args:
        key: a private key, PEM (PKCS#8) without a password.
        file: how errors name the key.

    Raises:
        InputError: it is no key, or one of a kind that we do not sign with.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner

    try:
        private = load_pem_private_key(key, password=None)
        signer = CryptoSigner(private)
    except (TypeError, ValueError) as error:
        raise InputError(
            "is not a private key that we sign with",
            file=file,
            fix="make one with `openssl genpkey -algorithm ed25519 -out key.pem`",
        ) from error
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return (json.dumps(envelope.to_dict(), indent=2) + "\n").encode()


def opened(content: bytes, keys: Sequence[str], *, file: str) -> bytes:
    """The payload of an envelope that one of the keys signed.

    Args:
        keys: public keys, PEM.

    Raises:
        InputError: it is no envelope of an in-toto statement.
        NotAttested: none of the keys signed it.
    """
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError

    known = [public_key(key, file=f"public key {at}") for at, key in enumerate(keys, 1)]
    try:
        envelope = Envelope.from_dict(json.loads(content))
        payload_type = envelope.payload_type
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError("is not a DSSE envelope", file=file, fix=_SIGN_AGAIN) from error
    if payload_type != PAYLOAD_TYPE:
        raise not_in_toto(file)
    try:
        envelope.verify(list(known), threshold=1)
    except (VerificationError, UnverifiedSignatureError, ValueError) as error:
        raise NotAttested(
            "is not signed by a key that is trusted here",
            file=file,
            fix="sign it with the key whose public half is trusted",
        ) from error
    payload: bytes = envelope.payload
    return payload


def not_in_toto(file: str) -> InputError:
    """The error for what somebody signed, and is no statement of the kind."""
    return InputError("is not about an in-toto statement", file=file, fix=_SIGN_AGAIN)


def public_key(key: str, *, file: str, field: str | None = None) -> SSlibKey:
    """A public key from PEM.

    Args:
        file: where it was read.
        field: where in there, for an error to say.

    Raises:
        InputError: it is none.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    try:
        return SSlibKey.from_crypto(load_pem_public_key(key.encode()))
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise InputError(
            "is not a public key in PEM",
            file=file,
            field=field,
            fix="write what `openssl pkey -in key.pem -pubout` prints",
        ) from error
