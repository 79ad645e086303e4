"""The in-toto Statement v1 about an adapter, with SLSA provenance v1, as it is read.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
https://slsa.dev/spec/v1.0/provenance
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from adapterbot.errors import InputError
from adapterbot.files.validation import first_problem
from adapterbot.records import Digest

PREDICATE_TYPE: Literal["https://slsa.dev/provenance/v1"] = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://github.com/org/adapter-action/blob/main/docs/attest.md#build-type-v1"

Text = Annotated[str, Field(max_length=4000)]


class _Read(BaseModel):
    """Fields that we do not know are a later version's, and pass, as the specifications ask."""

    model_config = ConfigDict(frozen=True, extra="allow")


class DigestSet(_Read):
    """Digests by algorithm; SHA-256 is the one that we hold files against."""

    sha256: Digest


class Descriptor(_Read):
    """A thing by name and digest."""

    name: Text = ""
    uri: Text = ""
    digest: DigestSet


class Parameters(_Read):
    """What our build type asks for; another's may lack it."""

    adapter: JsonValue = None


class BuildDefinition(_Read):
    """What went in."""

    build_type: Annotated[Text, Field(alias="buildType")]
    parameters: Annotated[Parameters, Field(alias="externalParameters")] = Parameters()
    dependencies: Annotated[
        tuple[Descriptor, ...], Field(alias="resolvedDependencies", max_length=10_000)
    ] = ()


class Builder(_Read):
    """Who built it."""

    id: Text


class RunDetails(_Read):
    """Who ran it, and what else came out."""

    builder: Builder
    byproducts: Annotated[tuple[Descriptor, ...], Field(max_length=10_000)] = ()


class Provenance(_Read):
    """SLSA provenance v1."""

    build: Annotated[BuildDefinition, Field(alias="buildDefinition")]
    run: Annotated[RunDetails, Field(alias="runDetails")]


class Statement(_Read):
    """What is claimed about which files. Subjects are files of the adapter's directory."""

    type: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    predicate_type: Annotated[
        Literal["https://slsa.dev/provenance/v1"], Field(alias="predicateType")
    ]
    subject: Annotated[tuple[Descriptor, ...], Field(min_length=1, max_length=10_000)]
    predicate: Provenance

    def as_signed(self) -> JsonValue:
        """All that was signed, and nothing else."""
        found: JsonValue = self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return found


def read_statement(payload: bytes, *, file: str) -> Statement:
    """A statement out of a verified envelope.

    Raises:
        InputError: it is none of the kind.
    """
    try:
        return Statement.model_validate_json(payload)
    except ValidationError as error:
        field, message = first_problem(error)
        raise InputError(
            f"is not an in-toto statement with SLSA provenance: {message}",
            file=file,
            field=field or None,
            fix="sign it again with `adapterbot attest sign`",
        ) from error
