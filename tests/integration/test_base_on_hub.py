"""A base model of the Hub becomes a directory of this machine before anything reads it: through the
Hub's own client and a server that speaks its protocol."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tests.example import EXAMPLE
from tests.hub_server import Hub, Repository

FILES = {path.name: path.read_bytes() for path in (EXAMPLE / "base").iterdir()}
LFS = frozenset({"model.safetensors"})
OLD, NEW = "1" * 40, "2" * 40
TEMPLATE = "additional_chat_templates/tool_use.jinja"

DRIVER = """
import json, sys
from adapterbot.errors import AdapterbotError
from adapterbot.eval.base_files import base_digest
from adapterbot.lock.base_guard import inspect_base
from adapterbot.lock.loaded_base import base_on_disk
told = []
for name in json.load(sys.stdin):
    try:
        found = base_on_disk(name)
        inspect_base(found, name)
        told.append([str(found), base_digest(found)])
    except AdapterbotError as error:
        told.append([error.exit_code, str(error)])
json.dump(told, sys.stdout)
"""


def find(url: str, home: Path, *names: str) -> list[tuple[object, str]]:
    """What is found and said of each, as `find_base` does, whose torch takes seconds to import; in
    one process, since the client reads its settings once."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(names),
        env={**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [tuple(one) for one in json.loads(done.stdout)]


def model(commit: str = NEW, **more: bytes) -> Repository:
    return Repository(commit, {**FILES, **more}, LFS, serves_lfs=True)


def downloaded(hub: Hub) -> set[str]:
    return {path.partition("/resolve/")[2].partition("/")[2] for path in hub.asked} - {""}


def test_a_base_of_the_hub_is_a_directory_of_what_is_loaded_by_revision(tmp_path: Path) -> None:
    copies = {"original/consolidated.safetensors": b"", "pytorch_model.bin": b"", "run.py": b""}
    old = model(OLD, **copies, **{TEMPLATE: b"for tools", "README.md": b""})
    new = Repository(
        NEW,
        {**old.files, "config.json": b"{}"},
        LFS,
        parent=old,
        tags={"v1": OLD, "v2": NEW},
        serves_lfs=True,
    )
    with Hub({"models/acme/tiny": new}) as hub:
        tag, commit, here = find(
            hub.url, tmp_path, "acme/tiny@v1", f"acme/tiny@{OLD}", str(EXAMPLE / "base")
        )
        assert downloaded(hub) == {*FILES, TEMPLATE}
        assert tag == commit
        assert Path(str(tag[0])).name == OLD
        hub.asked.clear()
        main, again, v2 = find(hub.url, tmp_path, "acme/tiny", "acme/tiny", "acme/tiny@v2")
        assert Path(str(main[0])).name == NEW
        assert downloaded(hub) == {*FILES, TEMPLATE}, "another commit may have other files"
        assert len({tag[1], main[1], here[1]}) == 3
    snapshots = tmp_path / "hub/models--acme--tiny/snapshots"
    (snapshots / OLD / "model.safetensors").unlink()
    # As a download of the whole repository leaves it: the machines of a cluster may differ by it.
    (snapshots / NEW / "onnx").mkdir()
    (snapshots / NEW / "onnx/config.json").write_bytes(b"{}")
    (snapshots / NEW / "consolidated.safetensors").write_bytes(FILES["model.safetensors"])
    names = "acme/tiny", "acme/tiny@v2", "acme/tiny@v1"
    silent, also, part = find("http://127.0.0.1:9", tmp_path, *names)
    assert main == again == silent == v2 == also
    assert (part[0], "only a part of" in part[1]) == (1, True), part


def test_what_the_hub_offers_as_a_base_is_looked_at_before_transformers_is(tmp_path: Path) -> None:
    """A repository with an adapter's config has transformers load whatever base that names; one
    whose config names an attention kernel has it run code of the Hub; a pickle is code; and a model
    larger than the disk fills it."""
    kernel = json.loads(FILES["config.json"]) | {"attn_implementation": "evil/kernel"}
    pickle = {name: content for name, content in FILES.items() if name not in LFS}
    adapter = {"adapter_config.json": b'{"base_model_name_or_path": "evil/base"}'}
    offered = {
        "adapter": model(**adapter),
        "kernel": model(**{"config.json": json.dumps(kernel).encode()}),
        "pickle": Repository(NEW, {**pickle, "pytorch_model.bin": b"."}, serves_lfs=True),
        "gated": Repository(NEW, FILES, LFS, serves_lfs=True, gated=True),
        "huge": replace(model(), sizes={"model.safetensors": 10**18}),
    }
    with Hub({f"models/acme/{name}": made for name, made in offered.items()}) as hub:
        told = find(hub.url, tmp_path, *(f"acme/{name}" for name in offered))
        assert not {path for path in hub.asked if path.endswith(".bin") or "huge/resolve" in path}
    for (code, words), says in zip(
        told,
        [
            "is an adapter",
            "attn_implementation",
            "no safetensors weights",
            "accept its terms",
            "takes 1,000,000,000.0 GB more, and",
        ],
        strict=True,
    ):
        assert (code, says in words) == (1 if "GB" in says else 2, True), words
