"""DSSE envelopes (https://github.com/secure-systems-lab/dsse), signed with a key in a PEM file.

Ed25519, ECDSA and RSA keys, by securesystemslib. An envelope is a stranger's file until it is
verified.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adapterbot.errors import InputError

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_MOST = 16  # signatures that are tried: a stranger's file may hold thousands
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
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner

    try:
        private = load_pem_private_key(key, password=None)
        signer = CryptoSigner(private)
    except TypeError as error:
        raise InputError(
            "is locked with a password",
            file=file,
            fix="sign with a key that has none, and keep that in your CI's secrets",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
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

    What an envelope says of a signature's key is a hint, which other tools leave out or make in
    other ways: every key is tried on every signature.

    Args:
        keys: public keys, PEM.

    Raises:
        InputError: it is no envelope of an in-toto statement.
        NotAttested: none of the keys signed it.
    """
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import UnverifiedSignatureError
    from securesystemslib.signer import Signature

    known = [public_key(key, file=f"public key {at}") for at, key in enumerate(keys, 1)]
    try:
        given = json.loads(content)
        envelope = Envelope.from_dict({**given, "signatures": []})
        payload_type, encoded = envelope.payload_type, envelope.pae()
        signatures = [_decoded(one["sig"]) for one in given["signatures"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError("is not a DSSE envelope", file=file, fix=_SIGN_AGAIN) from error
    if payload_type != PAYLOAD_TYPE:
        raise not_in_toto(file)
    for key, signature in itertools.product(known, signatures[:_MOST]):
        with contextlib.suppress(UnverifiedSignatureError):
            key.verify_signature(Signature(key.keyid, signature), encoded)
            payload: bytes = envelope.payload
            return payload
    raise NotAttested(
        "is not signed by a key that is trusted here",
        file=file,
        fix="sign it with the key whose public half is trusted",
    )


def _decoded(signature: str) -> str:
    """A signature in either of the two alphabets that DSSE allows, as hex digits."""
    return base64.b64decode(signature.replace("-", "+").replace("_", "/")).hex()


def not_in_toto(file: str) -> InputError:
    """The error for what somebody signed, and is no statement of the kind."""
    return InputError("is not about an in-toto statement", file=file, fix=_SIGN_AGAIN)


def public_key(key: str, *, file: str, field: str | None = None) -> SSlibKey:
    """A public key from PEM.

    Args:
        field: where in there, for an error to say.

    Raises:
        InputError: it is none.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    try:
        loaded = load_pem_public_key(key.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(
            "is not a public key in PEM",
            file=file,
            field=field,
            fix="write what `openssl pkey -in key.pem -pubout` prints",
        ) from error
    try:
        return SSlibKey.from_crypto(loaded)
    except ValueError as error:
        raise InputError(
            "is a public key of a kind that we do not verify with",
            file=file,
            field=field,
            fix="use ed25519, or ECDSA on a curve of NIST's",
        ) from error
