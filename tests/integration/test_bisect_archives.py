"""Checkpoints on the Hub and in S3, through the real clients and local servers."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from adapterbot import pipeline
from adapterbot.bisect import Archive, stores
from adapterbot.bisect.fetched import FetchedDirectories
from adapterbot.changes.selection import Overrides, select
from adapterbot.changes.sides import sides
from adapterbot.commands.evaluator import engine
from adapterbot.errors import InputError, OurFailure
from adapterbot.eval.settings import EngineSettings
from adapterbot.files.tree import WorkTree
from adapterbot.pipeline import Services
from adapterbot.records import BisectVerdict, Source
from tests import example
from tests.hub_server import Hub, Repository
from tests.integration.test_bisect_suite import Silent
from tests.programs import python

ROOT = Path(__file__).resolve().parents[2]
CONFIG = b'{"peft_type": "LORA"}'
WEIGHTS = "adapter_model.safetensors"
JUDGE = f"""
import pathlib, sys
sys.exit("bad" in pathlib.Path(sys.argv[1], "{WEIGHTS}").read_text())
"""
DRIVER = """
import contextlib, io, json, pathlib, sys
from adapterbot.cli import main
done = []
for named in json.loads(sys.argv[1]):
    errors, code = io.StringIO(), None
    arguments = ["--eval-command", f"{sys.executable} judge.py {{ckpt}}", "--outcomes", "exact"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        try: main(["bisect", *named, *arguments, "-o", "bisect.json"])
        except SystemExit as stop: code = stop.code
    written = pathlib.Path("bisect.json")
    done.append([code, errors.getvalue(), written.exists() and json.loads(written.read_text())])
    written.unlink(missing_ok=True)
print(json.dumps(done))
"""


def bisect(folder: Path, *named: list[str], **environment: str) -> list:
    """One `adapterbot bisect` after another in a process of their own: exit code, standard error
    and bisect.json of each."""
    (folder / "judge.py").write_text(JUDGE)
    ours = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
    done = python(
        "-c",
        DRIVER,
        json.dumps(named),
        cwd=folder,
        env={**ours, **environment},
        check=True,
        timeout=120,
    )
    found: list = json.loads(done.stdout)
    return found


# ---------------------------------------------------------------- the Hub


def run_on_the_hub() -> Repository:
    """Eight commits, of which the third changes a README only; the sixth breaks it."""
    one: Repository | None = None
    tags: dict[str, str] = {}
    weights, note = b"", b""
    for number in range(1, 9):
        if number == 3:
            note = b"note"
        else:
            weights = b"%s %d" % (b"bad" if number >= 6 else b"good", number)
        tags[f"v1.{number}"] = f"{number:040x}"
        one = Repository(
            f"{number:040x}",
            {"adapter_config.json": CONFIG, WEIGHTS: weights, "README.md": note},
            frozenset({WEIGHTS}),
            parent=one,
            tags=dict(tags),
            serves_lfs=True,
        )
    assert one
    return one


def on_the_hub(folder: Path, hub: Hub) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(folder / "home")}


def test_commits_and_tags_of_a_repository_on_the_hub(tmp_path: Path) -> None:
    with Hub({"models/org/run": run_on_the_hub()}) as hub:
        where = on_the_hub(tmp_path, hub)
        ((code, errors, commits),) = bisect(tmp_path, ["hf://org/run"], **where)
        assert code == 3, errors
        assert commits["first_broken"] == f"hf://org/run@{6:040x}"
        assert commits["last_good"] == f"hf://org/run@{5:040x}"
        assert commits["checkpoints"] == 7  # the README's commit is none
        loaded = {path for path in hub.asked if path.endswith(f"/{WEIGHTS}")}
        assert len(loaded) == commits["probes"]

        hub.asked.clear()
        tags, two, nothing, no_tag = bisect(
            tmp_path,
            ["hf://org/run@v1.*"],
            ["hf://org/run@v1.2", "hf://org/run@v1.7"],
            ["hf://org/nothing"],
            ["hf://org/run@w*"],
            **where,
        )
        assert tags[0] == 3, tags[1]
        assert tags[2]["checkpoints"] == 8
        assert tags[2]["first_broken"] == f"hf://org/run@{6:040x}"
        # What the first search fetched is here already.
        assert not loaded & {path for path in hub.asked if path.endswith(f"/{WEIGHTS}")}
        assert [step["checkpoint"][-1] for step in two[2]["steps"]] == ["7", "2"]
        assert (nothing[0], "we may not see it" in nothing[1]) == (2, True)
        assert (no_tag[0], "matches no tag" in no_tag[1]) == (2, True)
    ((code, errors, _),) = bisect(tmp_path, ["hf://org/run"], **where)
    assert (code, "hf://org/run: could not be read" in errors) == (1, True)


def test_weights_that_are_not_what_the_hub_says(tmp_path: Path) -> None:
    class Lying(Hub):
        def answer(self, path, form):
            status, headers, body = super().answer(path, form)
            return status, headers, b"evil" + body[4:] if path.endswith(f"/{WEIGHTS}") else body

    with Lying({"models/org/run": run_on_the_hub()}) as hub:
        ((code, errors, _),) = bisect(tmp_path, ["hf://org/run"], **on_the_hub(tmp_path, hub))
    assert (code, "is not what the Hub says it is" in errors) == (1, True)


# ---------------------------------------------------------------- S3


@pytest.fixture(scope="module")
def bucket():
    """A bucket, and a way to put objects into it."""
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    where = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in where.items():
            patch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="runs")

        def put(key: str, content: bytes) -> None:
            client.put_object(Bucket="runs", Key=key, Body=content)

        yield put
    server.stop()


def put_checkpoint(put, name: str, weights: bytes) -> None:
    put(f"{name}/adapter_config.json", CONFIG)
    put(f"{name}/{WEIGHTS}", weights)


def test_a_run_in_s3(tmp_path: Path, bucket) -> None:
    for step in range(100, 1700, 100):
        put_checkpoint(bucket, f"dates/checkpoint-{step}", b"bad" if step >= 1200 else b"good")
    first, gone = bisect(tmp_path, ["s3://runs/dates/*"], ["s3://runs/nowhere"])
    assert first[0] == 3, first[1]
    assert first[2]["first_broken"] == "s3://runs/dates/checkpoint-1200"
    assert first[2]["probes"] <= 6
    assert (gone[0], "holds no adapter directory" in gone[1]) == (2, True)
    assert len(list((tmp_path / "cache" / "adapterbot" / "checkpoints").iterdir())) <= 6


def test_what_changed_in_s3_is_fetched_anew(tmp_path: Path, bucket) -> None:
    for step in (1, 2):
        put_checkpoint(bucket, f"moving/c-{step}", b"old")
    archive = Archive(WorkTree(tmp_path), tmp_path / "cache")
    first, _ = archive.find(["s3://runs/moving"])
    with archive.opened(first) as path:
        assert (path / WEIGHTS).read_bytes() == b"old"
    bucket(f"moving/c-1/{WEIGHTS}", b"new")
    again = Archive(WorkTree(tmp_path), tmp_path / "cache")
    with again.opened(first) as path:
        assert (path / WEIGHTS).read_bytes() == b"new"


def test_hostile_objects(tmp_path: Path, bucket) -> None:
    archive = Archive(WorkTree(tmp_path), tmp_path / "cache")
    put_checkpoint(bucket, "climbing/..", b"x")
    put_checkpoint(bucket, "climbing/c-1", b"x")
    with pytest.raises(InputError, match="a name that we do not use"):
        archive.find(["s3://runs/climbing/*"])
    bucket("pickled/c-1/adapter_config.json", CONFIG)
    bucket("pickled/c-1/adapter_model.bin", b"\x80\x04")
    put_checkpoint(bucket, "pickled/c-2", b"x")
    bucket("pickled/c-2/../../evil", b"x")
    bad, good = archive.find(["s3://runs/pickled"])
    with pytest.raises(InputError, match="pickle"), archive.opened(bad):
        pass
    with archive.opened(good) as path:
        assert len(list(path.iterdir())) == 2
    for step in (1, 2):
        put_checkpoint(bucket, f"large/c-{step}", b"x")
        bucket(f"large/c-{step}/adapter_config.json", b" " * (17 * 1024 * 1024))
    with (
        pytest.raises(InputError, match="more than the"),
        archive.opened(archive.find(["s3://runs/large"])[0]),
    ):
        pass
    with pytest.raises((InputError, OurFailure), match="s3://no-such-bucket"):
        archive.find(["s3://no-such-bucket/run"])


class Liar(BaseHTTPRequestHandler):
    """A web server with one checkpoint, whose weights have four bytes, and do not end."""

    protocol_version = "HTTP/1.1"
    sent = 0

    def do_HEAD(self) -> None:
        self._answer(b"four")

    def do_GET(self) -> None:
        if not self.path.endswith(WEIGHTS):
            self._answer(CONFIG)
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with contextlib.suppress(OSError):
            while Liar.sent < 256 * 2**20:
                self.wfile.write(b"100000\r\n" + b"x" * 2**20 + b"\r\n")
                Liar.sent += 2**20
        self.close_connection = True

    def _answer(self, body: bytes) -> None:
        known = CONFIG if self.path.endswith(".json") else body
        self.send_response(200)
        self.send_header("Content-Length", str(len(known)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_attack_a_store_that_sends_more_than_it_announced_is_cut_off(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Liar) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (only,) = stores.find(f"http://127.0.0.1:{server.server_port}/run")
        cache = FetchedDirectories(tmp_path / "cache", limit=2**20)
        with pytest.raises(InputError, match="more than the"), stores.opened(only, cache):
            pass
        server.shutdown()
    assert Liar.sent < 128 * 2**20
    assert list((tmp_path / "cache").iterdir()) == []


# ---------------------------------------------------------------- the gate


def gated(base: Path, head: Path, cache: Path, make):
    where = sides(WorkTree(base), WorkTree(head))
    services = Services(engine=lambda: make, listener=Silent(), cache=cache)
    return pipeline.gate(where, select(where, Overrides()), services, Source()).adapters[0].bisect


def test_the_base_branch_names_the_archive_and_the_pull_request_does_not(
    tmp_path: Path, bucket
) -> None:
    repository = example.build(tmp_path / "head")
    for checkpoint in sorted((repository / "checkpoints").iterdir()):
        for file in checkpoint.iterdir():
            bucket(f"poisoned/{checkpoint.name}/{file.name}", file.read_bytes())
    base = tmp_path / "base"
    example.git(repository, "worktree", "add", "-q", str(base), "main")
    make = engine(EngineSettings(device="cpu"), {"ADAPTERBOT_CACHE": str(tmp_path / "scores")})()

    def configure(place: Path, **archive: str) -> None:
        config = {"version": 1, "adapters": [{"path": "adapters/dates", **archive}]}
        (place / "adapterbot.yaml").write_text(yaml.safe_dump(config))

    configure(repository, archive="s3://runs/poisoned")
    configure(base)
    found = gated(base, repository, tmp_path / "cache", make)
    assert (found.verdict, "no checkpoints are kept" in found.note) == (BisectVerdict.NOT_RUN, True)
    configure(repository, archive="s3://elsewhere/run")
    configure(base, archive="s3://runs/poisoned")
    found = gated(base, repository, tmp_path / "cache", make)
    assert (found.verdict, found.first_broken) == (BisectVerdict.BROKEN_AT, example.FIRST_POISONED)
