"""Attestations: made by one hand, verified by another, worthless once anything is tampered with."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import operator
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)
from cyclonedx.schema import SchemaVersion
from cyclonedx.schema._res import BOM_JSON, JSF, SPDX_JSON
from google.protobuf.json_format import ParseDict
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from referencing import Registry, Resource
from typer.testing import CliRunner

from adapterbot.attest import NotAttested, attestation_path, check, envelope, keyless
from adapterbot.attest.verification import subject_digests
from adapterbot.cli import app
from adapterbot.commands import gate
from adapterbot.config import Workflow
from adapterbot.errors import AdapterbotError, InputError
from adapterbot.files.tree import WorkTree
from adapterbot.weights import adapter_digest
from tests import example, sigstore_server
from tests.golden.reports import REPORTS

ADAPTER = "adapters/dates"
PLACE = attestation_path(ADAPTER)


def keypair(place: Path, name: str, private: Any) -> tuple[Path, str]:
    path = place / f"{name}.pem"
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".pub").write_bytes(public)
    return path, public.decode()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    place = tmp_path_factory.mktemp("keys")
    made = {
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
        "ecdsa": ec.generate_private_key(ec.SECP256R1()),
        "other": ed25519.Ed25519PrivateKey.generate(),
    }
    return {name: keypair(place, name, private) for name, private in made.items()}


def invoke(*arguments: object, expect: int = 0) -> str:
    done = CliRunner().invoke(app, ["attest", *map(str, arguments)])
    if isinstance(done.exception, AdapterbotError):
        assert int(done.exception.exit_code) == expect, done.exception
        return str(done.exception)
    assert done.exit_code == expect, done.output
    return done.output


@pytest.fixture
def signed(repository: Path, keys: dict[str, tuple[Path, str]]) -> Path:
    invoke("sign", ADAPTER, "--key", keys["ed25519"][0])
    return repository


# ---------------------------------------------------------------- what is signed


def test_an_adapter_is_signed_by_a_way_through_a_link_to_the_checkout(repository, keys, tmp_path):
    """As of /tmp on macOS."""
    (tmp_path / "way").symlink_to(repository.parent)
    adapter = tmp_path / "way" / repository.name / ADAPTER
    invoke("sign", adapter, "--key", keys["ed25519"][0])
    assert (repository / PLACE).is_file()
    assert "outside" in invoke("sign", tmp_path, "--key", keys["ed25519"][0], expect=2)


def test_what_a_lock_of_other_weights_pins_is_not_signed_for(repository, keys):
    """Trained again, and the lock forgotten: the statement would name the data of the old run."""
    _flip(f"{ADAPTER}/adapter_model.safetensors")(repository)
    said = invoke("sign", ADAPTER, "--key", keys["ed25519"][0], expect=2)
    assert said.startswith("soup.lock: these weights are not the ones that were locked")
    assert not (repository / PLACE).exists()
    assert invoke("cyclonedx", ADAPTER, expect=2) == said
    shutil.copytree(repository / ADAPTER, repository / "adapters/other")
    said = invoke("sign", "adapters/other", "--key", keys["ed25519"][0], expect=2)
    assert f"records {ADAPTER} alone, so this is not known to be its lock" in said
    (repository / "soup.lock.d" / "pinned.json").unlink()
    invoke("sign", ADAPTER, "--key", keys["ed25519"][0])


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_the_signature_is_dsses_own(repository, keys, kind):
    private, public = keys[kind]
    invoke("sign", ADAPTER, "--key", private)
    envelope = json.loads((repository / PLACE).read_text())
    payload = base64.b64decode(envelope["payload"])
    kind_of = envelope["payloadType"].encode()
    # The specification's pre-authentication encoding, written out here once more.
    message = b"DSSEv1 %d %s %d %s" % (len(kind_of), kind_of, len(payload), payload)
    (signature,) = envelope["signatures"]
    key: Any = load_pem_public_key(public.encode())
    extra = [ec.ECDSA(hashes.SHA256())] if kind == "ecdsa" else []
    key.verify(base64.b64decode(signature["sig"]), message, *extra)
    invoke("verify", ADAPTER, "--key", private.with_suffix(".pub"))


def test_the_statement_is_in_totos_with_every_digest(signed: Path) -> None:
    payload = json.loads(base64.b64decode(json.loads((signed / PLACE).read_text())["payload"]))
    Statement.copy_from_pb(ParseDict(payload, statement_pb2.Statement())).validate()
    assert payload["predicateType"] == "https://slsa.dev/provenance/v1"
    subjects = {s["name"]: s["digest"]["sha256"] for s in payload["subject"]}
    assert subjects == {path.name: _sha256(path) for path in (signed / ADAPTER).iterdir()}
    built = payload["predicate"]["buildDefinition"]
    named = {d["name"]: d["digest"]["sha256"] for d in built["resolvedDependencies"]}
    for name in ("soup.lock", "soup.yaml", "evals/suite.yaml", "evals/dates_us.jsonl"):
        assert named[name] == _sha256(signed / name)
    lock = json.loads((signed / "soup.lock").read_text())
    assert named["dataset"] == lock["dataset_sha"]
    assert named["environment"] == lock["env_hash"]


def test_what_verify_prints_is_what_was_signed_and_what_differs_here(signed, keys):
    public = keys["ed25519"][0].with_suffix(".pub")
    payload = json.loads(base64.b64decode(json.loads((signed / PLACE).read_text())["payload"]))
    told = json.loads(invoke("verify", ADAPTER, "--key", public, "--json"))
    assert told == {"verified": True, "lock": "soup.lock", "changed": [], "statement": payload}
    assert "another is here" not in invoke("verify", ADAPTER, "--key", public)
    (signed / "soup.yaml").write_text("base: other\n")
    said = invoke("verify", ADAPTER, "--key", public).splitlines()
    assert said[0] == f"verified  2 files of {ADAPTER}, and soup.lock"
    assert [line.split()[1] for line in said if line.endswith("  another is here")] == ["soup.yaml"]
    assert json.loads(invoke("verify", ADAPTER, "--key", public, "--json"))["changed"] == [
        "soup.yaml"
    ]


@pytest.mark.parametrize("what", ["data", "soup.yaml", "."])
def test_what_is_no_adapter_is_not_signed_for(repository, keys, what):
    said = invoke("sign", what, "--key", keys["ed25519"][0], expect=2)
    assert "adapter" in said.partition(" (")[0]
    assert not list(repository.glob("**/*.intoto.json"))
    invoke("cyclonedx", what, expect=2)


def test_attack_an_adapter_at_the_root_is_signed_for_by_its_files_own_names(repository, keys):
    private, public = keys["ed25519"]
    for path in (repository / ADAPTER).iterdir():
        shutil.copyfile(path, repository / path.name)
    (repository / "soup.lock").unlink()
    with pytest.raises(NotAttested, match=r"run `adapterbot attest sign \. --key"):
        check(WorkTree(repository), "", [public])
    named = ("-o", repository / ".intoto.json")
    for output in ((), (), named):  # an attestation signs for no other, which it replaces
        invoke("sign", ".", "--key", private, *output)
    statement = check(WorkTree(repository), "", [public])
    assert {"adapter_config.json", "evals/suite.yaml"} <= {one.name for one in statement.subject}
    (repository / "mole_config.json").write_text("{}")
    with pytest.raises(NotAttested, match=r"nothing about mole_config\.json"):
        check(WorkTree(repository), "", [public])


def test_what_git_ignores_is_signed_for_only_where_people_would_load_it(repository, keys):
    """A run leaves checkpoints in its folder, which the checkout that verifies does not have."""
    private, public = keys["ed25519"]
    (repository / ".gitignore").write_text("checkpoint-*\n.DS_Store\n*.bin\n")
    left = repository / ADAPTER / "checkpoint-1"
    left.mkdir()
    (left / "optimizer.pt").write_text("state")
    (repository / ADAPTER / ".DS_Store").write_text("view")
    invoke("sign", ADAPTER, "--key", private)
    statement = check(WorkTree(repository), ADAPTER, [public])
    names = {one.name for one in statement.subject}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}
    (repository / ADAPTER / "adapter_model.bin").write_bytes(b"\x80")
    with pytest.raises(NotAttested, match=r"nothing about adapter_model\.bin"):
        check(WorkTree(repository), ADAPTER, [public])


def test_a_mixture_that_git_ignores_is_signed_for_with_its_experts(repository):
    (repository / ".gitignore").write_text("mixtures\n")
    mixture = repository / "mixtures/one"
    expert = mixture / "experts/00"
    expert.mkdir(parents=True)
    for file in (mixture / "mole_config.json", expert / "adapter_model.safetensors"):
        file.write_text("{}")
    (expert / "README.md").write_text("trained")
    names = subject_digests(WorkTree(repository), "mixtures/one").keys()
    assert names == {"mole_config.json", "experts/00/adapter_model.safetensors"}


def test_a_lock_is_signed_for_however_its_path_is_written(repository, keys):
    private, public = keys["ed25519"]
    adapter = {"path": ADAPTER, "lock": "./soup.lock", "config": "./soup.yaml"}
    (repository / "adapterbot.yaml").write_text(yaml.safe_dump({"adapters": [adapter]}))
    invoke("sign", ADAPTER, "--key", private)
    check(WorkTree(repository), ADAPTER, [public], lock="soup.lock")


def _sha256(path: Path) -> str:
    return subprocess.run(
        ["sha256sum", path], check=True, capture_output=True, text=True
    ).stdout.split()[0]


def test_a_run_is_named_by_its_workflow(repository, keys, monkeypatch):
    monkeypatch.setenv("GITHUB_WORKFLOW_REF", "acme/adapters/.github/workflows/t.yml@refs/heads/m")
    monkeypatch.setenv("GITHUB_RUN_ID", "7")
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/adapters")
    (repository / "report.json").write_text(_report(adapter_digest(repository / ADAPTER)))
    invoke("sign", ADAPTER, "--key", keys["ed25519"][0], "--report", "report.json")
    public = keys["ed25519"][0].with_suffix(".pub")
    asked = ("verify", ADAPTER, "--key", public, "--report", "report.json")
    told = json.loads(invoke(*asked, "--json"))
    run = told["statement"]["predicate"]["runDetails"]
    assert run["builder"]["id"].endswith("acme/adapters/.github/workflows/t.yml@refs/heads/m")
    with (repository / "report.json").open("a") as stream:
        stream.write(" ")
    assert "not about" in invoke(*asked, expect=3)


# ---------------------------------------------------------------- tampering


def _in_envelope(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def tamper(root: Path) -> None:
        envelope = json.loads((root / PLACE).read_text())
        change(envelope)
        (root / PLACE).write_text(json.dumps(envelope))

    return tamper


def _payload(envelope: dict[str, Any]) -> None:
    payload = base64.b64decode(envelope["payload"])
    forged = payload.replace(b"urn:adapterbot:by-hand", b"urn:adapterbot:by-hanD")
    assert forged != payload
    envelope["payload"] = base64.b64encode(forged).decode()


def _signature(envelope: dict[str, Any]) -> None:
    (signature,) = envelope["signatures"]
    raw = bytearray(base64.b64decode(signature["sig"]))
    raw[0] ^= 1
    signature["sig"] = base64.b64encode(raw).decode()


def _flip(name: str) -> Callable[[Path], None]:
    def tamper(root: Path) -> None:
        content = bytearray((root / name).read_bytes())
        content[-1] ^= 1
        (root / name).write_bytes(content)

    return tamper


TAMPERED: dict[str, tuple[Callable[[Path], object], str]] = {
    "the payload": (_in_envelope(_payload), "not signed"),
    "the signature": (_in_envelope(_signature), "not signed"),
    "no signature": (_in_envelope(lambda e: e.update(signatures=[])), "not signed"),
    "the weights": (_flip(f"{ADAPTER}/adapter_model.safetensors"), "was changed"),
    "the options": (_flip(f"{ADAPTER}/adapter_config.json"), "was changed"),
    "the lock": (_flip("soup.lock"), "another soup.lock"),
    "the lock is gone": (lambda r: (r / "soup.lock").unlink(), "soup.lock, which is missing"),
    "a file is gone": (lambda r: (r / ADAPTER / "adapter_config.json").unlink(), "is missing"),
    "a file more": (
        lambda r: (r / ADAPTER / "adapter_model.bin").write_bytes(b"\x80"),
        "says nothing about adapter_model.bin",
    ),
    "no attestation": (lambda r: (r / PLACE).unlink(), "does not exist"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_whatever_is_tampered_with_is_found(signed, keys, what):
    tamper, said = TAMPERED[what]
    public = keys["ed25519"][1]
    check(WorkTree(signed), ADAPTER, [public], lock="soup.lock")
    tamper(signed)
    with pytest.raises(NotAttested, match=said):
        check(WorkTree(signed), ADAPTER, [public], lock="soup.lock")


@pytest.mark.parametrize("by", ["--key", "--identity"])
def test_an_adapter_that_nobody_signed_for_is_a_finding(repository, keys, by):
    who = keys["ed25519"][0].with_suffix(".pub") if by == "--key" else "https://github.com/o/r"
    said = invoke("verify", ADAPTER, by, who, "--json", expect=3)
    assert "nobody signed for this adapter" in json.loads(said)["why"]


@pytest.mark.parametrize("somebody_signed", [False, True])
def test_a_key_that_is_none_is_bad_input_whether_anybody_signed_or_not(
    repository, keys, tmp_path, somebody_signed
):
    private, public = keys["ed25519"]
    if somebody_signed:
        invoke("sign", ADAPTER, "--key", private)
    (tmp_path / "junk.pem").write_text("junk")
    for key in (tmp_path / "junk.pem", private):
        told = invoke("verify", ADAPTER, "--key", key, expect=2)
        assert told.startswith(f"{key}: is not a public key in PEM")
    with pytest.raises(InputError) as caught:
        check(WorkTree(repository), ADAPTER, [public, "junk"])
    assert (caught.value.file, caught.value.field) == ("adapterbot.yaml", "attested_by[1]")


def test_another_key_is_worth_nothing(signed, keys):
    with pytest.raises(NotAttested, match="not signed"):
        check(WorkTree(signed), ADAPTER, [keys["other"][1]])
    check(WorkTree(signed), ADAPTER, [keys["other"][1], keys["ed25519"][1]])


@pytest.mark.parametrize("hint", [{}, {"keyid": ""}, {"keyid": None}, {"keyid": "SHA256:abc"}])
def test_a_key_that_an_envelope_does_not_name_is_tried_all_the_same(signed, keys, hint):
    """cosign names none, and a service that keeps keys names them in its own way."""
    content = json.loads((signed / PLACE).read_text())
    encoded = content["signatures"][0]["sig"].replace("+", "-").replace("/", "_")
    content["signatures"] = [{**hint, "sig": "AAAA"}, {**hint, "sig": encoded}]
    (signed / PLACE).write_text(json.dumps(content))
    check(WorkTree(signed), ADAPTER, [keys["other"][1], keys["ed25519"][1]])
    with pytest.raises(NotAttested, match="not signed"):
        check(WorkTree(signed), ADAPTER, [keys["other"][1]])


def test_attack_an_adapter_with_its_attestation_does_not_stand_in_for_another(signed, keys):
    shutil.copytree(signed / ADAPTER, signed / "adapters/other")
    shutil.copyfile(signed / PLACE, signed / attestation_path("adapters/other"))
    with pytest.raises(NotAttested, match=f"is about {ADAPTER}"):
        check(WorkTree(signed), "adapters/other", [keys["ed25519"][1]], lock="soup.lock")


def test_attack_a_statement_that_names_no_adapter_is_for_none(signed, keys):
    """Other tools sign such ones; laid beside another adapter, it would stand for that."""
    private, public = keys["ed25519"]
    payload = base64.b64decode(json.loads((signed / PLACE).read_text())["payload"])
    statement = json.loads(payload)
    del statement["predicate"]["buildDefinition"]["externalParameters"]["adapter"]
    content = json.dumps(statement).encode()
    (signed / PLACE).write_bytes(envelope.sign(content, private.read_bytes(), file="key"))
    with pytest.raises(NotAttested, match="does not say which adapter"):
        check(WorkTree(signed), ADAPTER, [public], lock="soup.lock")


def test_attack_what_makes_a_mixture_of_it_must_be_signed_for(signed, keys):
    (signed / ADAPTER / "mole_config.json").write_text("{}")
    with pytest.raises(NotAttested, match=r"nothing about mole_config\.json"):
        check(WorkTree(signed), ADAPTER, [keys["ed25519"][1]])


NO_ENVELOPES = (
    "",
    "[]",
    "{}",
    "null",
    "[" * 100_000,
    '{"payload": 1, "payloadType": "x", "signatures": []}',
    '{"payload": "", "payloadType": "text/plain", "signatures": []}',
)


@pytest.mark.parametrize("content", NO_ENVELOPES)
def test_what_is_no_envelope_is_refused_as_such(signed, keys, content):
    (signed / PLACE).write_text(content)
    with pytest.raises(InputError) as caught:
        check(WorkTree(signed), ADAPTER, [keys["ed25519"][1]])
    assert not isinstance(caught.value, NotAttested)


def test_bad_keys_and_options_are_said_in_a_line(repository, keys):
    (repository / "key").write_text("not a key")
    assert "not a private key" in invoke("sign", ADAPTER, "--key", "key", expect=2)
    locked = ed25519.Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")
    )
    (repository / "locked").write_bytes(locked)
    assert "with a password" in invoke("sign", ADAPTER, "--key", "locked", expect=2)
    private, _ = keypair(repository, "odd", ec.generate_private_key(ec.SECP256K1()))
    said = invoke("verify", ADAPTER, "--key", private.with_suffix(".pub"), expect=2)
    assert "of a kind that we do not verify" in said
    assert "--keyless" in invoke("sign", ADAPTER, expect=2)
    assert "no OIDC token" in invoke("sign", ADAPTER, "--keyless", expect=2)
    assert "does not exist" in invoke("sign", "nowhere", "--key", keys["other"][0], expect=2)
    assert "nowhere: does not exist" in invoke("verify", "nowhere", "--key", "key", expect=2)
    assert not (repository / PLACE).exists()


# ---------------------------------------------------------------- without a key

WORKFLOW = "https://github.com/acme/shop/.github/workflows/train.yml@refs/heads/main"


@pytest.fixture
def sigstore(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[sigstore_server.Instance, Path]]:
    """An instance that knows this job as WORKFLOW, and the file that says how to trust it."""
    with sigstore_server.serving(WORKFLOW) as instance:
        for name, value in instance.environment().items():
            monkeypatch.setenv(name, value)
        place = tmp_path / "trust.json"
        place.write_text(json.dumps(instance.trust_config()))
        yield instance, place


def _verified(trust: Path, *more: str, identity: str = WORKFLOW, expect: int = 0) -> Any:
    return json.loads(
        invoke(
            "verify", ADAPTER, "--identity", identity, "--trust-config", trust, *more, "--json",
            expect=expect,
        )
    )  # fmt: skip


def test_a_job_signs_without_a_key_and_anyone_verifies_who_it_was(repository, sigstore):
    _, trust = sigstore
    for _ in range(2):  # the second lies deeper in the log
        invoke("sign", ADAPTER, "--keyless", "--trust-config", trust)
        assert _verified(trust)["verified"]
    other = _verified(trust, identity=WORKFLOW.replace("train", "other"), expect=3)
    assert "is not signed by" in other["why"]
    _flip(f"{ADAPTER}/adapter_model.safetensors")(repository)
    assert "was changed since" in _verified(trust, expect=3)["why"]


def test_a_bundle_of_another_instance_or_with_another_statement_is_nobodys(
    repository, sigstore, tmp_path
):
    """An instance that anyone can start certifies anything; a payload exchanged under a signature
    is the attack of CVE-2022-36056."""
    _, trust = sigstore
    invoke("sign", ADAPTER, "--keyless", "--trust-config", trust)
    bundle = json.loads((repository / PLACE).read_text())
    with sigstore_server.serving(WORKFLOW) as stranger:
        strange = tmp_path / "strange.json"
        strange.write_text(json.dumps(stranger.trust_config()))
        assert not _verified(strange, expect=3)["verified"]
    forged = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b"sha256", b"sha255", 1)
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(forged).decode()
    (repository / PLACE).write_text(json.dumps(bundle))
    assert not _verified(trust, expect=3)["verified"]


def test_attack_a_strangers_run_of_a_reusable_workflow_is_not_ours(repository, sigstore, tmp_path):
    """Fulcio certifies the workflow that signs; whoever calls it chooses what it signs for."""
    instance, trust = sigstore
    instance.repository = "https://github.com/mallory/shop"
    invoke("sign", ADAPTER, "--keyless", "--trust-config", trust)
    assert "mallory" in _verified(trust, expect=3)["why"]
    assert _verified(trust, "--repository", instance.repository)["verified"]
    shutil.copy(trust, repository / "trust.json")
    here = Workflow(identity=WORKFLOW, trust_config="trust.json")
    with pytest.raises(NotAttested, match="mallory"):
        check(WorkTree(repository), ADAPTER, [here])
    theirs = here.model_copy(update={"repository": instance.repository})
    assert check(WorkTree(repository), ADAPTER, [theirs]).subject


def test_attack_what_a_trusted_workflow_signed_as_something_else_is_no_statement(
    repository, sigstore, monkeypatch
):
    _, trust = sigstore
    with monkeypatch.context() as other:  # of the library's, which signs nothing else itself
        other.setattr("sigstore.dsse.Envelope._TYPE", "text/plain")
        invoke("sign", ADAPTER, "--keyless", "--trust-config", trust)
    said = invoke("verify", ADAPTER, "--identity", WORKFLOW, "--trust-config", trust, expect=2)
    assert "not about an in-toto statement" in said


def test_attack_a_broken_bundle_is_a_line_and_no_crash(repository, sigstore):
    _, trust = sigstore
    invoke("sign", ADAPTER, "--keyless", "--trust-config", trust)
    whole = (repository / PLACE).read_text()
    signer = Workflow(identity=WORKFLOW)
    odd: tuple[Any, ...] = (None, "", [], -1, "AAAA")
    trusted = keyless.Trust(trust.read_text(), "trust.json")
    sound = keyless.opened(whole.encode(), signer, file=PLACE, trust=trusted)
    for place in _places(json.loads(whole)):
        for content in odd:
            bundle = json.loads(whole)
            _at(bundle, place[:-1])[place[-1]] = content
            if bundle == json.loads(whole):
                continue
            broken = json.dumps(bundle).encode()
            with contextlib.suppress(InputError):
                # What does not count may be odd; what was signed is then what was signed.
                assert keyless.opened(broken, signer, file=PLACE, trust=trusted) == sound


def _places(document: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    parts = document.items() if isinstance(document, dict) else enumerate(document)
    for name, part in parts:
        yield (*place, name)
        if isinstance(part, dict | list):
            yield from _places(part, (*place, name))


def _at(document: Any, place: tuple[Any, ...]) -> Any:
    return functools.reduce(operator.getitem, place, document)


def test_a_policy_takes_workflows_as_signers(repository, sigstore, keys, tmp_path):
    """Which instance is trusted is the base branch's word: a pull request cannot bring its own."""
    _, trust = sigstore
    base = tmp_path / "base"
    base.mkdir()
    shutil.copy(trust, base / "trust.json")
    (repository / "trust.json").write_text("{}")
    here = Workflow(identity=WORKFLOW, trust_config="trust.json")
    other = here.model_copy(update={"identity": WORKFLOW.replace("train", "other")})
    key = keys["ed25519"][1]

    def judged(*signers: str | Workflow) -> Any:
        return check(WorkTree(repository), ADAPTER, signers, policy=WorkTree(base))

    invoke("sign", ADAPTER, "--keyless", "--trust-config", trust)
    assert judged(key, other, here).subject
    for signers in ((key,), (other,)):
        with pytest.raises(NotAttested):
            judged(*signers)
    invoke("sign", ADAPTER, "--key", keys["ed25519"][0])
    assert judged(here, key).subject
    with pytest.raises(NotAttested):
        judged(here)


def test_what_keeps_a_job_from_signing_is_said_in_a_line(repository, sigstore, keys, monkeypatch):
    instance, trust = sigstore
    (repository / "no.json").write_text("{}")
    said = invoke("sign", ADAPTER, "--keyless", "--trust-config", "no.json", expect=2)
    assert said.startswith("no.json: mediaType: ")
    said = invoke("sign", ADAPTER, "--key", keys["other"][0], "--trust-config", trust, expect=2)
    assert "--trust-config" in said
    key = keys["other"][0]
    before = Path(key).read_bytes()
    for needed in (key, "soup.yaml", "soup.lock", f"{ADAPTER}/adapter_config.json"):
        said = invoke("sign", ADAPTER, "--key", key, "-o", needed, expect=2)
        assert "--output, -o: is a file that the command itself needs" in said
    assert Path(key).read_bytes() == before
    said = invoke("verify", ADAPTER, "--key", key, "--repository", "https://h/o/r", expect=2)
    assert "--repository" in said
    said = invoke("verify", ADAPTER, "--identity", WORKFLOW, "--issuer", "", expect=2)
    assert said.startswith("--issuer")
    instance.refuses = True
    assert "Sigstore did not sign" in invoke(
        "sign", ADAPTER, "--keyless", "--trust-config", trust, expect=1
    )
    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    said = invoke("sign", ADAPTER, "--keyless", "--trust-config", trust, expect=2)
    assert "id-token: write" in said
    assert not (repository / PLACE).exists()


# ---------------------------------------------------------------- CycloneDX


def test_the_bill_of_materials_is_cyclonedx(repository: Path) -> None:
    out = repository / "bom.json"
    said = invoke("cyclonedx", ADAPTER, "-o", out, "--json")
    assert json.loads(said) == {"path": str(out)}
    document = json.loads(out.read_text())
    schema = json.loads(Path(str(BOM_JSON[SchemaVersion.V1_6])).read_text())
    parts = [json.loads(Path(str(path)).read_text()) for path in (SPDX_JSON, JSF)]
    registry = Registry().with_resources(
        [(name, Resource.from_contents(part)) for part in parts for name in _names(part)]
    )
    jsonschema.Draft7Validator(schema, registry=registry).validate(document)
    model = document["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    files = {part["name"]: part["hashes"][0]["content"] for part in model["components"]}
    assert files["adapter_model.safetensors"] == _sha256(
        repository / ADAPTER / "adapter_model.safetensors"
    )


def _report(digest: str, key: str = "adapters-dates") -> str:
    """A report of a gate that measured weights of this digest."""
    report = REPORTS["regressed"]()
    (section,) = report.adapters
    candidate = section.candidate.model_copy(update={"digest": digest})
    about = section.model_copy(update={"candidate": candidate, "key": key})
    return report.model_copy(update={"adapters": (about,)}).model_dump_json()


@pytest.mark.parametrize("command", ["cyclonedx", "sign"])
def test_a_report_of_other_weights_is_refused(
    repository: Path, keys: dict[str, tuple[Path, str]], command: str
) -> None:
    path = repository / "report.json"
    asked = [command, ADAPTER, "--report", path]
    asked += ["--key", keys["ed25519"][0]] if command == "sign" else []
    right = adapter_digest(repository / ADAPTER)
    path.write_text(_report("0" * 64))
    said = invoke(*asked, expect=2)
    assert f"is about the weights 000000000000, and these are {right[:12]}" in said
    path.write_text(_report(right, key="others"))
    assert "says nothing of adapters/dates" in invoke(*asked, expect=2)
    assert not (repository / PLACE).exists()


def test_a_model_card_holds_what_the_gate_measured(repository: Path) -> None:
    path = repository / "report.json"
    path.write_text(_report(adapter_digest(repository / ADAPTER)))
    document = json.loads(invoke("cyclonedx", ADAPTER, "--report", path))
    card = document["metadata"]["component"]["modelCard"]
    shown = {row["slice"] for row in card["quantitativeAnalysis"]["performanceMetrics"]}
    (section,) = REPORTS["regressed"]().adapters
    assert shown == {m.delta.task for m in section.metrics if m.delta.slice is None}


def _names(schema: dict[str, Any]) -> list[str]:
    return [schema["$id"], schema["$id"].rpartition("/")[2]]


# ---------------------------------------------------------------- the gate


def _policy(repository: Path, public: str) -> None:
    adapters = [{"path": ADAPTER, "policy": {"attested_by": [public], "self_check": 0}}]
    example.git(repository, "checkout", "-q", "main")
    (repository / "adapterbot.yaml").write_text(yaml.safe_dump({"adapters": adapters}))
    example.commit(repository, "Only attested adapters")
    example.git(repository, "checkout", "-q", "-")
    example.git(repository, "merge", "-q", "main", "-m", "merge")


def test_the_gate_evaluates_only_what_was_signed_for(repository, keys, tmp_path):
    private, public = keys["ed25519"]
    _policy(repository, public)
    environment = {"ADAPTERBOT_CACHE": str(tmp_path / "cache")}

    def judged() -> Any:
        options = gate.GateOptions(base="main", out=tmp_path / "out", device="cpu")
        (adapter,) = gate.run(options, environment).report.adapters
        return adapter

    problem = judged().problem
    assert problem.kind == "bad_input"
    assert "nobody signed for this adapter" in problem.message
    invoke("sign", ADAPTER, "--key", private)
    assert judged().verdict.outcome == "passed"
    _flip(f"{ADAPTER}/adapter_model.safetensors")(repository)
    assert "was changed since" in judged().problem.message


def test_attack_an_adapter_added_beside_those_that_are_listed_is_signed_for_too(
    repository, keys, tmp_path
):
    public = keys["ed25519"][1]
    example.git(repository, "checkout", "-q", "main")
    listed = {"attested_by": [public], "adapters": [{"path": ADAPTER}]}
    (repository / "adapterbot.yaml").write_text(yaml.safe_dump(listed))
    example.commit(repository, "Only attested adapters")
    shutil.copytree(repository / ADAPTER, repository / "adapters/mine")
    options = gate.GateOptions(base="main", out=tmp_path / "out", device="cpu")
    (added,) = gate.run(options, {"ADAPTERBOT_CACHE": str(tmp_path / "cache")}).report.adapters
    assert added.adapter == "adapters/mine"
    assert "nobody signed for this adapter" in added.problem.message
