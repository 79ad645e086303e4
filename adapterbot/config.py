"""adapterbot.yaml. Pure: text comes in, frozen models come out. What a repository without one
implies is `conventions`'s.

The gate reads the policy in here from the base ref only: a pull request cannot loosen the margins
that it is judged by.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from adapterbot.errors import InputError
from adapterbot.files.paths import normalise
from adapterbot.files.yamlfile import parse, validate
from adapterbot.records import EngineSettings, Finite, Probability, Record

CONFIG_FILES = ("adapterbot.yaml", ".github/adapterbot.yaml")
TRAINING_CONFIG = "soup.yaml"
LOCK = "soup.lock"
SUITE = "evals/suite.yaml"
BANK_SUFFIX = ".safetensors"
STEP = "{step}"

PublicKey = Annotated[str, Field(pattern=r"^-----BEGIN PUBLIC KEY-----", max_length=4000)]
GITHUB_ISSUER = "https://token.actions.githubusercontent.com"
_ADDRESS = r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$"
RepoPath = Annotated[str, Field(min_length=1, max_length=1000)]


class OnDrift(StrEnum):
    """What a lock that no longer matches does to the verdict."""

    FAIL = "fail"
    WARN = "warn"


class FailOn(StrEnum):
    """A standing of a gated metric that fails the gate."""

    REGRESSED = "regressed"
    INCONCLUSIVE = "inconclusive"


class MetricRule(Record):
    """What one metric is held against, instead of what the suite says.

    gated: whether a regression of it fails the gate. A slice is not gated unless it says so.
    margin: the metric is ok once a harm of this size is ruled out, in its own unit.
    least_effect: a mean harm smaller than this is no regression.
    """

    gated: bool | None = None
    margin: Annotated[Finite, Field(ge=0)] | None = None
    least_effect: Annotated[Finite, Field(ge=0)] | None = None


class Workflow(Record):
    """Who signs without a key: a workflow, as Sigstore certifies it.

    identity: the workflow's URL with its ref, as in the certificate.
    issuer: of the OIDC token that the workflow presented.
    repository: URL of the repository that ran it; that of `identity` when None, if GitHub
        issued the token. A reusable workflow is certified as itself even if a stranger's
        repository calls it.
    trust_config: repository path, at the base ref, of the client trust config of your own
        Sigstore instance; the public instance when None.
    """

    identity: Annotated[str, Field(min_length=1, max_length=1000)]
    issuer: Annotated[str, Field(min_length=1, max_length=1000)] = GITHUB_ISSUER
    repository: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    trust_config: RepoPath | None = None

    @property
    def ran_in(self) -> str | None:
        """URL of the repository that must have run it; None where the issuer certifies none."""
        if self.repository or self.issuer != GITHUB_ISSUER:
            return self.repository
        return self.identity.partition("/.github/workflows/")[0]


def _signer_kind(given: object) -> str:
    """So that an error in one kind is not reported as what it lacks to be the other."""
    return "key" if isinstance(given, str) else "workflow"


Signer = Annotated[
    Annotated[PublicKey, Tag("key")] | Annotated[Workflow, Tag("workflow")],
    Discriminator(_signer_kind),
]


class Policy(Record):
    """What counts as a finding.

    alpha: the chance of calling any metric regressed if nothing changed.
    on_drift: whether a lock that no longer matches fails the gate, or is only shown.
    fail_on: which standings of a gated metric fail the gate; none with [].
    metrics: by task, or by `task [slice]`, what overrides the suite.
    sequential: stop evaluating as soon as every gated metric is decided.
    self_check: how many samples the baseline answers twice, to show the engine's own noise.
    attested_by: public keys, PEM, and workflows. With any, a candidate is evaluated only if one of
        them signed its files and its lock (`adapterbot attest sign`).
    """

    alpha: Annotated[Probability, Field(gt=0, lt=0.5)] = 0.05
    on_drift: OnDrift = OnDrift.FAIL
    fail_on: tuple[FailOn, ...] = (FailOn.REGRESSED,)
    sequential: bool = False
    self_check: Annotated[int, Field(ge=0, le=10_000)] = 32
    metrics: dict[str, MetricRule] = Field(default_factory=dict)
    attested_by: tuple[Signer, ...] = ()


class ArchiveData(Record):
    """The rows that the checkpoints of an archive were trained on.

    files: the data of one checkpoint. {step} stands for its step, with or without leading zeros,
        and * for anything within a folder.
    holds: `all` the rows of a checkpoint, or only those `added` since the one before it.
    """

    files: RepoPath
    holds: Literal["all", "added"] = "all"

    @field_validator("files")
    @classmethod
    def _names_the_step(cls, files: str) -> str:
        if files.count(STEP) != 1:
            raise ValueError(f"must hold {STEP} once, for the step of a checkpoint")
        return files


class AdapterConfig(Record):
    """One adapter that is gated, and what it is gated with. Paths are relative to the repository.

    path: the adapter's directory, a mixture's, or the file of an exported bank.
    key: names the adapter in its check and its comment; made from the path if left out.
    config: the training config, which names the base model and the data.
    lock: what pins them.
    suite: what the adapter is judged by.
    baseline: `base-ref` (the same adapter at the base ref), `none` (the bare base model), or the
        path of another adapter.
    archive: the training run's checkpoints, bisected on a regression: a pattern, or an address that
        begins with git:, hf:// or s3://.
    archive_data: the rows that each of these checkpoints was trained on.
    """

    path: RepoPath
    key: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$",
            default_factory=lambda given: key_of(given["path"]),
        ),
    ]
    config: RepoPath = TRAINING_CONFIG
    lock: RepoPath = LOCK
    suite: RepoPath = SUITE
    baseline: RepoPath = "base-ref"
    archive: RepoPath | None = None
    archive_data: ArchiveData | None = None
    policy: Policy = Policy()

    @property
    def is_bank(self) -> bool:
        """Whether it is a vector bank, as `adapterbot bank export` writes one, and no directory."""
        return self.path.endswith(BANK_SUFFIX)


class Server(Record):
    """An OpenAI-compatible server that evaluates instead of this machine.

    url: including `/v1`. Its API key comes from ADAPTERBOT_SERVER_KEY.
    model: the name of the base model there; the base's own name when None.
    adapter: the name of an adapter there; {digest} stands for 16 digits of its content.
    load: load an adapter that is not served, and unload it afterwards (vLLM's runtime loading).
    revision: a name for what runs there. With one, scores are kept between runs; change it with
        the server's version, precision or weights.
    concurrency: how many requests may be under way at once.
    timeout: seconds for one request.
    """

    url: Annotated[str, Field(max_length=1000, json_schema_extra={"pattern": _ADDRESS})]
    model: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    adapter: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9._/-]*\{digest\}[A-Za-z0-9._/-]*$", max_length=200)
    ] = "adapterbot-{digest}"
    load: bool = True
    revision: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 32
    timeout: Annotated[Finite, Field(gt=0, le=3600)] = 300.0

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if not re.fullmatch(_ADDRESS, url):
            raise ValueError("must be an address such as http://127.0.0.1:8000/v1")
        return url


class HistoryConfig(Record):
    """Where results per commit are kept: one of the two.

    branch: a branch of this repository; results are one file on it, pushed with the job's token.
    file: an SQLite file on the runner's own disk, from the repository root or absolute.
    """

    branch: (
        Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+([./-][A-Za-z0-9_]+)*$", max_length=200)]
        | None
    ) = None
    file: Annotated[str, Field(min_length=1, max_length=1000)] | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.branch is None) == (self.file is None):
            raise ValueError("name a branch or a file, and not both")
        return self


class Config(Record):
    """What is gated, and with what; at the root or in `.github/`, read from the base branch.

    adapters: each adapter that is gated.
    base_model: an absolute path that `base` in a training config may name, for a base model on the
        runner's disk.
    allow_forks: whether pull requests from forks may run on a self-hosted runner.
    engine: how answers are computed.
    server: a server that evaluates instead of this machine.
    history: where the metrics of merged commits are kept.
    attested_by: as in a policy, for every adapter whose own policy names nobody, including those
        that the head adds.
    """

    version: Literal[1] = 1
    base_model: RepoPath | None = None
    allow_forks: bool = False
    engine: EngineSettings = EngineSettings()
    server: Server | None = None
    history: HistoryConfig | None = None
    attested_by: tuple[Signer, ...] = ()
    adapters: tuple[AdapterConfig, ...]

    @model_validator(mode="after")
    def _keys_are_unique(self) -> Self:
        keys = [adapter.key for adapter in self.adapters]
        doubled = sorted({key for key in keys if keys.count(key) > 1})
        if doubled:
            raise ValueError(f"the key {doubled[0]!r} is used by two adapters; give one a `key`")
        return self


def key_of(path: str) -> str:
    """A stable key for an adapter directory: its path, in the characters that a marker may hold."""
    key = re.sub(r"[^a-z0-9._-]+", "-", path.lower().removeprefix("./")).strip("-._")
    return key[:100] or "adapter"


def load(content: bytes, name: str) -> Config:
    """Parse adapterbot.yaml.

    Raises:
        InputError: naming the field, its line and the fix.
    """
    file = parse(content, name)
    if not isinstance(file.content, dict):
        raise InputError(
            "must be a mapping with `version` and `adapters`",
            file=name,
            fix="list the adapters under `adapters:`, each with its `path:`",
        )
    config = validate(Config, file, file.content)
    for index, adapter in enumerate(config.adapters):
        for field in ("path", "config", "lock", "suite"):
            normalise(getattr(adapter, field), field=f"adapters[{index}].{field}")
        if adapter.archive_data:
            normalise(adapter.archive_data.files, field=f"adapters[{index}].archive_data.files")
    if not config.adapters:
        raise InputError("is empty", file=name, field="adapters", fix="list an adapter")
    return config
