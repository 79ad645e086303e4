"""A real vLLM in place of our engine: the same answers, the same break found.

It needs a vLLM of the user's own, on a GPU or built for the CPU: `VLLM=/path/to/vllm`, or one on
the path; without one the tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml

from tests import example
from tests.ports import free_port

PATIENCE = 600  # seconds for vLLM to load and to compile
# Not lm_head: with it vLLM's log-likelihoods of prompts are wrong, or end the server
# (vllm-project/vllm issues 29955 and 51594).
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = os.environ.get("VLLM") or shutil.which("vllm")
    if program is None:
        pytest.skip("no vLLM is at hand; VLLM=/path/to/vllm names one")
    port = free_port()
    command = [
        *(program, "serve", str(example.EXAMPLE / "base"), "--served-model-name", "base"),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"),
        *("--max-model-len", "128", "--enable-lora", "--lora-target-modules", *TARGETS),
    ]
    environment = os.environ | {
        "PATH": f"{Path(program).parent}{os.pathsep}{os.environ['PATH']}",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; of a server without a GPU
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    log = tmp_path_factory.mktemp("vllm") / "serve.log"
    with log.open("wb") as said:
        server = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        try:
            yield _ready(f"http://127.0.0.1:{port}/v1", server, log)
        finally:
            server.terminate()
            server.wait(60)


def _ready(url: str, server: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            with urlopen(f"{url}/models"):
                return url
        except URLError:
            time.sleep(1)
    pytest.fail(f"vLLM did not start:\n{log.read_text(errors='replace')[-3000:]}")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return example.build(tmp_path / "repository")


def _serve_from(repository: Path, url: str) -> None:
    """Have the base branch name the server, and the branch of the pull request stand on it."""
    with example.on_main(repository):
        path = repository / "adapterbot.yaml"
        config = yaml.safe_load(path.read_text())
        config["server"] = {"url": url, "model": "base", "load": True}
        path.write_text(yaml.safe_dump(config))
    example.git(repository, "rebase", "-q", "main")


def _adapterbot(repository: Path, *words: str, code: int = 0) -> Any:
    command = [sys.executable, "-m", "adapterbot", *words, "--json"]
    environment = os.environ | {"ADAPTERBOT_CACHE": str(repository.parent / "cache")}
    done = subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def _suite(repository: Path) -> Path:
    """Everything that is asked of a server: texts, chats, choices, likelihoods, seeded samples."""
    text = (repository / "evals/dates_us.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()[:40]]
    dates = [row["expected"] for row in rows]
    written = {
        "chats": [
            {"messages": [{"role": "user", "content": row["prompt"]}], "expected": row["expected"]}
            for row in rows
        ],
        "choices": [
            {"prompt": row["prompt"], "choices": [date, other, "12"], "expected": date}
            for row, (date, other) in zip(rows, pairwise(dates), strict=False)
            if date != other
        ],
        "dates": rows,
    }
    for name, samples in written.items():
        text = "".join(f"{json.dumps(sample)}\n" for sample in samples)
        (repository / f"evals/{name}.jsonl").write_text(text)
    generation = {"max_new_tokens": 16, "stop": ["\n"]}
    tasks: list[dict[str, object]] = [
        {"name": "texts", "data": "dates.jsonl", "scorer": "exact", "generation": generation},
        {"name": "chats", "data": "chats.jsonl", "scorer": "exact", "generation": generation},
        {"name": "choices", "data": "choices.jsonl", "scorer": "multiple_choice"},
        {"name": "likely", "data": "dates.jsonl", "scorer": "perplexity", "direction": "lower"},
        {"name": "bytes", "data": "dates.jsonl", "scorer": "bits_per_byte", "direction": "lower"},
    ]
    path = repository / "evals/served.yaml"
    path.write_text(
        yaml.safe_dump({"version": 1, "tasks": [task | {"margin": 0.05} for task in tasks]})
    )
    return path


def _samples(written: dict) -> dict[tuple[str, str], dict]:
    text = Path(written["adapters"][0]["results"]).read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    return {
        (line["task"], line["sample"]["sample_id"]): line["sample"]
        for line in lines
        if "sample" in line
    }


def test_it_says_what_our_engine_says(url: str, repository: Path) -> None:
    words = ("eval", "adapters/dates", "--suite", str(_suite(repository)))
    here = _samples(_adapterbot(repository, *words))
    _serve_from(repository, url)
    found = _adapterbot(repository, *words)
    assert found["adapters"][0]["eval"]["device"] == "a server"
    there = _samples(found)
    assert set(here) == set(there)
    for key, one in here.items():
        assert there[key].get("output") == one.get("output"), key
        assert there[key]["score"] == pytest.approx(one["score"], abs=1e-4), key
    with urlopen(f"{url}/models") as reply:
        served = [model["id"] for model in json.load(reply)["data"]]
    assert served == ["base"], "what was loaded for us is unloaded"


def test_the_gate_finds_the_checkpoint_that_broke_it(url: str, repository: Path) -> None:
    _serve_from(repository, url)
    report = _adapterbot(repository, "gate", "--base", "main", "--head", "HEAD", code=3)
    (judged,) = report["adapters"]
    assert judged["eval"]["device"] == "a server"
    assert judged["bisect"]["first_broken"].endswith(example.FIRST_POISONED)
