"""A Sigstore instance on loopback: the OIDC issuer of a job, Fulcio, its CT log, and Rekor.

It speaks what `sigstore` asks of Fulcio v2 and Rekor v1, and signs for real: certificates with an
embedded SCT (RFC 6962), log entries with an inclusion proof and a signed checkpoint.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import rfc8785
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

ISSUER = "https://token.actions.githubusercontent.com"
_FULCIO_ISSUER = ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_SOURCE_REPOSITORY = ObjectIdentifier("1.3.6.1.4.1.57264.1.12")
_SCT_LIST = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_START = "2020-01-01T00:00:00Z"


class Instance(ThreadingHTTPServer):
    """Certifies `identity`, a workflow's URL, to whoever shows a token that it issued itself."""

    def __init__(self, identity: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.identity = identity
        self.repository = identity.partition("/.github/")[0]
        self.request_token = "the job's own"
        self.secret = "the issuer's, at least thirty-two bytes long"
        self.authority_key, self.ct_key, self.log_key = (
            ec.generate_private_key(ec.SECP256R1()) for _ in range(3)
        )
        self.authority = self._root()
        self.leaves: list[bytes] = []
        self.refuses = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def environment(self) -> dict[str, str]:
        """What GitHub gives a job with `id-token: write`."""
        return {
            "GITHUB_ACTIONS": "true",
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}/token?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": self.request_token,
        }

    def trust_config(self) -> dict[str, Any]:
        """The client trust config of this instance, as `sigstore --trust-config` reads it."""
        service = {
            "url": self.url, "majorApiVersion": 1, "operator": "here",
            "validFor": {"start": _START},
        }  # fmt: skip
        return {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "signingConfig": {
                "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                "caUrls": [service],
                "oidcUrls": [service],
                "rekorTlogUrls": [service],
                "rekorTlogConfig": {"selector": "ANY"},
                "tsaConfig": {"selector": "ANY"},
            },
            "trustedRoot": {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [self._log(self.log_key)],
                "ctlogs": [self._log(self.ct_key)],
                "certificateAuthorities": [
                    {
                        "subject": {"organization": "here", "commonName": "here"},
                        "uri": self.url,
                        "certChain": {
                            "certificates": [
                                {"rawBytes": _b64(self.authority.public_bytes(Encoding.DER))}
                            ]
                        },
                        "validFor": {"start": _START},
                    }
                ],
            },
        }

    def _log(self, key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
        return {
            "baseUrl": self.url,
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": _b64(_public(key)),
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "validFor": {"start": _START},
            },
            "logId": {"keyId": _b64(_sha256(_public(key)))},
        }

    def _root(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "here")])
        return (
            _certificate(name, name, self.authority_key.public_key(), days=3650)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True), critical=True)
            .add_extension(self._key_identifier(), critical=False)
            .sign(self.authority_key, hashes.SHA256())
        )

    def _key_identifier(self) -> x509.SubjectKeyIdentifier:
        return x509.SubjectKeyIdentifier.from_public_key(self.authority_key.public_key())

    def token(self, audience: str) -> str:
        now = int(time.time())
        claims = {
            "iss": ISSUER, "sub": "repo:acme/shop", "aud": audience, "iat": now, "exp": now + 300
        }  # fmt: skip
        return jwt.encode(claims, self.secret, algorithm="HS256")

    def certify(self, request: bytes) -> list[str]:
        """A certificate for the key of a signing request, with its chain, in PEM."""
        csr = x509.load_pem_x509_csr(request)
        assert csr.is_signature_valid
        key = csr.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        builder = (
            _certificate(x509.Name([]), self.authority.subject, key, days=1)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(self.identity)]), True
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                    self._key_identifier()
                ),
                False,
            )
            .add_extension(x509.UnrecognizedExtension(_FULCIO_ISSUER, ISSUER.encode()), False)
            .add_extension(
                x509.UnrecognizedExtension(_SOURCE_REPOSITORY, asn1.encode_der(self.repository)),
                False,
            )
        )
        before = builder.sign(self.authority_key, hashes.SHA256())
        logged = builder.add_extension(
            x509.UnrecognizedExtension(_SCT_LIST, self._sct_list(before)), False
        )
        chain = (logged.sign(self.authority_key, hashes.SHA256()), self.authority)
        return [one.public_bytes(Encoding.PEM).decode() for one in chain]

    def _sct_list(self, precertificate: x509.Certificate) -> bytes:
        """RFC 6962, 3.2 and 3.3: one signed certificate timestamp."""
        tbs = precertificate.tbs_certificate_bytes
        milliseconds = int(time.time() * 1000)
        entry = _sha256(_public(self.authority_key)) + len(tbs).to_bytes(3) + tbs
        signed = struct.pack("!BBQH", 0, 0, milliseconds, 1) + entry + struct.pack("!H", 0)
        signature = self.ct_key.sign(signed, ec.ECDSA(hashes.SHA256()))
        sct = (
            struct.pack("!B32sQH", 0, _sha256(_public(self.ct_key)), milliseconds, 0)
            + struct.pack("!BBH", 4, 3, len(signature))  # SHA-256, ECDSA
            + signature
        )
        listed = struct.pack("!HH", len(sct) + 2, len(sct)) + sct
        return bytes([4, len(listed)]) + listed  # an OCTET STRING

    def enter(self, proposed: dict[str, Any]) -> dict[str, Any]:
        """Put a DSSE entry into the log, and prove that it is in there."""
        content = proposed["spec"]["proposedContent"]
        envelope = json.loads(content["envelope"])
        body = rfc8785.dumps(
            {
                "apiVersion": "0.0.1",
                "kind": "dsse",
                "spec": {
                    "envelopeHash": _hash(content["envelope"].encode()),
                    "payloadHash": _hash(base64.b64decode(envelope["payload"])),
                    "signatures": [
                        {"signature": one["sig"], "verifier": content["verifiers"][0]}
                        for one in envelope["signatures"]
                    ],
                },
            }
        )
        # Every entry after the first hangs beside a subtree of all before it: one hash proves it.
        leaf = _sha256(b"\0" + body)
        index, before = (1, self.leaves[0]) if self.leaves else (0, None)
        self.leaves.append(leaf)
        root = leaf if before is None else _sha256(b"\1" + before + leaf)
        note = f"here - 1\n{index + 1}\n{_b64(root)}\n"
        log_id = _sha256(_public(self.log_key))
        signed = self.log_key.sign(note.encode(), ec.ECDSA(hashes.SHA256()))
        entry = {
            "body": _b64(body),
            "integratedTime": int(time.time()),
            "logID": log_id.hex(),
            "logIndex": index,
        }
        promise = self.log_key.sign(rfc8785.dumps(entry), ec.ECDSA(hashes.SHA256()))
        proof = {
            "logIndex": index,
            "rootHash": root.hex(),
            "treeSize": index + 1,
            "hashes": [] if before is None else [before.hex()],
            "checkpoint": f"{note}\n\u2014 here {_b64(log_id[:4] + signed)}\n",
        }
        verification = {"signedEntryTimestamp": _b64(promise), "inclusionProof": proof}
        return {leaf.hex(): {**entry, "verification": verification}}


class _Handler(BaseHTTPRequestHandler):
    server: Instance

    def do_GET(self) -> None:  # the runner's token service
        if self.headers["Authorization"] != f"bearer {self.server.request_token}":
            return self._answer(401, {})
        return self._answer(200, {"value": self.server.token("sigstore")})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.refuses:
            return self._answer(403, {"code": 7, "message": "not you"})
        if self.path == "/api/v2/signingCert":
            token = self.headers["Authorization"].removeprefix("Bearer ")
            jwt.decode(token, self.server.secret, algorithms=["HS256"], audience="sigstore")
            chain = self.server.certify(base64.b64decode(asked["certificateSigningRequest"]))
            certified = {"chain": {"certificates": chain}}
            return self._answer(200, {"signedCertificateEmbeddedSct": certified})
        assert self.path == "/api/v1/log/entries"
        return self._answer(201, self.server.enter(asked))

    def _answer(self, status: int, document: Any) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(identity: str) -> Iterator[Instance]:
    """An instance that certifies this identity."""
    with Instance(identity) as instance:
        thread = threading.Thread(target=instance.serve_forever, daemon=True)
        thread.start()
        yield instance
        instance.shutdown()
        thread.join()


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _public(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _hash(content: bytes) -> dict[str, str]:
    return {"algorithm": "sha256", "value": hashlib.sha256(content).hexdigest()}


def _b64(content: bytes) -> str:
    return base64.b64encode(content).decode()
