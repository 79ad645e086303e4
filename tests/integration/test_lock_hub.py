"""A base model and a dataset on the Hub, through the Hub's own client and a server that speaks its
protocol: one digest from a folder, from file metadata, and from the client's cache."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.hub_server import Hub, Repository

COMMIT = "c" * 40
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = json.dumps({"weight_map": dict(zip("ab", SHARDS, strict=True))}).encode()
MODEL = {
    ".gitattributes": b"*.safetensors filter=lfs",
    "README.md": b"notes",
    "config.json": b'{"hidden_size": 8}',
    "model-00001-of-00002.safetensors": bytes(range(256)) * 40,
    "model-00002-of-00002.safetensors": bytes(range(255, -1, -1)) * 40,
    "model.safetensors.index.json": INDEX,
    "tokenizer.json": b"{}",
}
# What a repository may hold besides, and transformers does not load.
COPIES = {
    "pytorch_model.bin": b"pickle",
    "consolidated.safetensors": b"vendor's own",
    "original/consolidated.00.pth": b"original",
    "onnx/model.onnx": b"onnx",
}
LFS = frozenset(
    name for name in {**MODEL, **COPIES} if "safetensors" in name and "index" not in name
)
DATA = {
    "README.md": b"card",
    "data/train.parquet": b"PAR1" * 100,
    "data/extra.jsonl": b'{"a": 1}\n',
}


@pytest.fixture
def hub():
    repositories = {
        "models/org/model": Repository(COMMIT, {**MODEL, **COPIES}, LFS, frozenset({"main", "v1"})),
        "datasets/org/data": Repository(COMMIT, DATA, frozenset({"data/train.parquet"})),
    }
    with Hub(repositories) as running:
        yield running


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "p" / "local").mkdir(parents=True)
    for name, content in MODEL.items():
        (tmp_path / "p" / "local" / name).write_bytes(content)
    (tmp_path / "p" / "train.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "p" / ".git").mkdir()
    return tmp_path / "p"


@dataclass(frozen=True)
class Step:
    """One command over one soup.yaml."""

    base: str = "./local"
    train: str = "train.jsonl"
    command: str = "write"


DRIVER = """
import contextlib, io, json, pathlib, sys
from adapterbot.cli import main
done = []
for base, train, command in json.load(sys.stdin):
    pathlib.Path("soup.yaml").write_text(f"base: {base}\\ndata:\\n  train: {train}\\n")
    out, err, code = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try: main(["lock", command, "--env-hash", "e" * 64, "--json"])
        except SystemExit as stop: code = stop.code
    done.append([code, out.getvalue(), err.getvalue()])
json.dump(done, sys.stdout)
"""


def run(project: Path, url: str, *steps: Step, **more: str) -> list[tuple[int, Any, str]]:
    """Exit code, document and words of every step; in one process, since the client takes a second
    to import and reads its settings then."""
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
        "HF_ENDPOINT": url,
        "HF_HOME": str(project.parent / "hf"),
        "XDG_CACHE_HOME": str(project.parent / "cache"),
        **more,
    }
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps([[step.base, step.train, step.command] for step in steps]),
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [(code, json.loads(out), err) for code, out, err in json.loads(done.stdout)]


def test_one_digest_from_a_folder_from_metadata_and_from_the_clients_cache(
    hub: Hub, project: Path
) -> None:
    # The client's cache as it is after a full download: links into a store of blobs.
    cache = project.parent / "hf" / "hub" / "models--org--model"
    snapshot = cache / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for name, content in MODEL.items():
        blob = cache / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))
    by_commit = Step(f"org/model@{COMMIT}")
    (offline,) = run(project, hub.url, by_commit, HF_HUB_OFFLINE="1")
    assert hub.asked == []
    done = run(project, hub.url, Step(), by_commit, Step("org/model@v1"), Step(str(snapshot)))
    assert [code for code, *_ in (offline, *done)] == [0] * 5, (offline, done)
    assert len({made["base_model_sha"] for _, made, _ in (offline, *done)}) == 1
    assert [path for path in hub.asked if path.startswith("/api/models/org/model/revision")]
    assert not [path for path in hub.asked if path.endswith("of-00002.safetensors")]

    (snapshot / "tokenizer.json").unlink()
    (snapshot / "tokenizer.json").symlink_to("/etc/hostname")
    ((code, _, err),) = run(project, hub.url, Step(str(snapshot)))
    assert code == 2
    assert "link out of the Hub's cache" in err


def test_metadata_alone_gives_the_digest_of_the_folder(hub: Hub, project: Path) -> None:
    done = run(project, hub.url, Step(), Step("org/model"))
    assert [code for code, *_ in done] == [0, 0], done
    assert len({made["base_model_sha"] for _, made, _ in done}) == 1
    fetched = {path.rpartition("/")[2] for path in hub.asked if "/resolve/" in path}
    assert fetched == {"config.json", "model.safetensors.index.json", "tokenizer.json"}


def test_two_revisions_of_a_dataset_and_a_folder_of_its_name_are_each_pinned(
    hub: Hub, project: Path
) -> None:
    key = "datasets/org/data"
    one, two, three = (letter * 40 for letter in "123")
    older = Repository(one, {"x.jsonl": b"1"})
    newer = Repository(two, {"x.jsonl": b"2"}, parent=older)
    hub.repositories[key] = Repository(three, {"x.jsonl": b"3"}, parent=newer)

    def shas(*data: str) -> list[str]:
        done = run(project, hub.url, *(Step(train=train) for train in data))
        assert [code for code, *_ in done] == [0] * len(done), done
        return [made["dataset_sha"] for _, made, _ in done]

    pairs = [f"[org/data@{first}, org/data@{two}]" for first in (one, three)]
    alone = f"org/data@{two}"
    assert len(set(shas(*pairs, alone, f"[{alone}, {alone}]"))) == 3
    (project / "org" / "data").mkdir(parents=True)
    local = project / "org" / "data" / "x.jsonl"
    told = []
    for content in ("here", "there"):
        local.write_text(content)
        told += shas(f"[./org/data, {alone}]")
    assert len(set(told)) == 2
    sidecar = json.loads(next((project / "soup.lock.d").glob("*.json")).read_text())
    assert set(sidecar["dataset"]) == {"org/data/x.jsonl", f"org/data@{two}/x.jsonl"}


def test_a_dataset_of_the_hub_by_revision(hub: Hub, project: Path) -> None:
    data = hub.repositories["datasets/org/data"]
    written, same = run(
        project,
        hub.url,
        Step(train=f"org/data@{COMMIT}"),
        Step(train=f"org/data@{COMMIT}", command="check"),
    )
    listing = "".join(
        f"{hashlib.sha256(DATA[name]).hexdigest()}  org/data/{name}\n"
        for name in ("data/extra.jsonl", "data/train.parquet")
    )
    assert written[1]["dataset_sha"] == hashlib.sha256(listing.encode()).hexdigest()
    assert same[0] == 0
    later = {**DATA, "data/extra.jsonl": b'{"a": 2}\n'}
    hub.repositories["datasets/org/data"] = replace(data, commit="d" * 40, files=later)
    ((code, found, _),) = run(project, hub.url, Step(train="org/data", command="check"))
    assert code == 3
    # That another revision is named is advice.
    (part,) = [part for part in found["parts"] if not (part["ok"] or part["advisory"])]
    assert part["explanation"] == "org/data/data/extra.jsonl changed"


def test_a_name_like_a_notes_does_not_hide_data_of_the_hub(hub: Hub, project: Path) -> None:
    data = hub.repositories["datasets/org/data"]
    plates = {"license_plates.jsonl": b"1", "usage.parquet": b"2", "LICENSE.txt": b"3"}
    hub.repositories["datasets/org/data"] = replace(data, files={**DATA, **plates})
    ((code, _, _),) = run(project, hub.url, Step(train="org/data"))
    assert code == 0
    sidecar = json.loads(next((project / "soup.lock.d").glob("*.json")).read_text())
    names = ("data/extra.jsonl", "data/train.parquet", "license_plates.jsonl", "usage.parquet")
    assert set(sidecar["dataset"]) == {f"org/data/{name}" for name in names}


def test_what_the_hub_does_not_show_or_must_not_say(hub: Hub, project: Path) -> None:
    """A name with a newline could pass for two lines of what is hashed."""
    hub.repositories["models/org/odd"] = Repository(COMMIT, {**MODEL, "x\nconfig.json": b""}, LFS)
    done = run(
        project,
        hub.url,
        Step("org/nowhere"),
        Step("org/model@nowhere"),
        Step(train="org/nothing"),
        Step("org/odd"),
    )
    assert [code for code, *_ in done] == [2, 2, 2, 2], done
    for (_, _, err), says in zip(
        done,
        [
            "soup.yaml: base (line 1): 'org/nowhere' is neither in the repository nor a model",
            "'org/model@nowhere' is neither in the repository nor a model",
            "soup.yaml: data.train (line 3): 'org/nothing' is neither",
            "control character",
        ],
        strict=True,
    ):
        assert says in err
    assert not (project / "soup.lock").exists()


def test_a_silent_hub_is_our_failure_and_no_drift(project: Path) -> None:
    ((code, _, err),) = run(project, "http://127.0.0.1:9", Step("org/model"))
    assert code == 1
    assert "did not answer" in err
    assert not (project / "soup.lock").exists()


@pytest.mark.parametrize("of", ["model", "data"])
def test_a_part_of_a_repository_on_this_machine_is_our_failure_and_no_drift(
    hub: Hub, project: Path, of: str
) -> None:
    """The client keeps what was loaded, such as a file of a data set; nothing was removed."""
    base = f"org/model@{COMMIT}" if of == "model" else "./local"
    data = f"org/data@{COMMIT}" if of == "data" else "./train.jsonl"
    (written,) = run(project, hub.url, Step(base, data))
    assert written[0] == 0
    files = MODEL if of == "model" else DATA
    snapshot = project.parent / f"hf/hub/{of}s--org--{of}/snapshots".replace("datas", "datasets")
    snapshot = snapshot / COMMIT
    snapshot.mkdir(parents=True, exist_ok=True)
    left_out = "tokenizer.json" if of == "model" else "data/extra.jsonl"
    for name, content in files.items():
        (snapshot / name).parent.mkdir(exist_ok=True)
        (snapshot / name).unlink(missing_ok=True)
        if name != left_out:
            (snapshot / name).write_bytes(content)
    ((code, _, err),) = run(project, "http://127.0.0.1:9", Step(base, data, "check"))
    assert (code, "only a part of" in err) == (1, True)
    (snapshot / left_out).write_bytes(files[left_out])
    ((code, *_),) = run(project, "http://127.0.0.1:9", Step(base, data, "check"))
    assert code == 0


@pytest.mark.parametrize("sharded", [True, False])
def test_a_model_without_its_weights_is_not_locked(hub: Hub, project: Path, sharded: bool) -> None:
    """What a lock fetched for itself, taken for the model once the network is gone."""
    if not sharded:
        whole = {n: c for n, c in MODEL.items() if "index" not in n and "of-0000" not in n}
        hub.repositories["models/org/model"] = Repository(
            COMMIT, {**whole, "model.safetensors": b"x"}, frozenset({"model.safetensors"})
        )
    step = Step(f"org/model@{COMMIT}")
    assert run(project, hub.url, step)[0][0] == 0
    ((code, _, err),) = run(project, "http://127.0.0.1:9", step)
    assert code == (2 if sharded else 1)
    assert ("which is not there" if sharded else "only a part of") in err
