"""Who trained this adapter from what, signed: in-toto statements with SLSA provenance, in DSSE.

Verifying needs no extra, so that every gate can verify; making statements and bills of materials
needs `adapterbot[attest]`, and signing without a key `adapterbot[keyless]`.
"""

from adapterbot.attest.envelope import NotAttested
from adapterbot.attest.verification import attestation_path, check

__all__ = ["NotAttested", "attestation_path", "check"]
