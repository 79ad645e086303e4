"""Soup's own command line on our locks, and ours on Soup's.

Soup lives in an environment of its own, which `make e2e` may take a minute to make; elsewhere the
tests are skipped where it is not there yet.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import peers

PINNED = {"--base-model": "org/model", "--base-sha": "a" * 64, "--dataset-sha": "b" * 64}
HASHES = {**PINNED, "--env-hash": "c" * 64}


@pytest.fixture(scope="session")
def soup() -> Path:
    made = peers.PLACE / "soup" / ".made"
    if not made.exists() and os.environ.get("CI") != "true":
        pytest.skip("Soup is not installed; CI=true installs it, as does `python -m bench lock`")
    return peers.soup() / "soup"


def run(program: Path | str, folder: Path, *arguments: str) -> tuple[int, str]:
    command = [program, *arguments]
    if program == "adapterbot":
        command = [sys.executable, "-m", *command]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def options(hashes: dict[str, str]) -> list[str]:
    return [word for pair in hashes.items() for word in pair]


def test_each_writes_what_the_other_reads(soup: Path, tmp_path: Path) -> None:
    for writer, reader in ((soup, "adapterbot"), ("adapterbot", soup)):
        assert run(writer, tmp_path, "lock", "write", *options(HASHES))[0] == 0
        assert run(reader, tmp_path, "lock", "show")[0] == 0
        assert run(reader, tmp_path, "lock", "check", *options(HASHES))[0] == 0
        for option in HASHES:
            other = {**HASHES, option: "org/other" if option == "--base-model" else "d" * 64}
            drift = 3 if reader == "adapterbot" else 2
            assert run(reader, tmp_path, "lock", "check", *options(other))[0] == drift, option


def test_the_files_differ_in_nothing_but_what_is_advisory(soup: Path, tmp_path: Path) -> None:
    texts = []
    for writer in (soup, "adapterbot"):
        run(writer, tmp_path, "lock", "write", *options(HASHES))
        text = (tmp_path / "soup.lock").read_bytes().decode()
        for field in ("created_at", "soup_version"):
            text = text.replace(json.loads(text)[field], field)
        texts.append(text)
    assert texts[0] == texts[1]


def test_environments_hash_alike(soup: Path, tmp_path: Path) -> None:
    """Soup takes its `--env-hash` from the soup-env.lock that we wrote, and we from Soup's."""
    for writer, reader in ((soup, "adapterbot"), ("adapterbot", soup)):
        assert run(writer, tmp_path, "env", "lock")[0] == 0
        written = []
        for program in (writer, reader):
            code, said = run(program, tmp_path, "lock", "write", *options(PINNED))
            assert code == 0, said
            written.append(json.loads((tmp_path / "soup.lock").read_text())["env_hash"])
        assert written[0] == written[1]
    uv = '[[package]]\nname = "torch"\nversion = "2.13.0+cu130"\n'
    (tmp_path / "uv.lock").write_text(uv)
    assert run("adapterbot", tmp_path, "env", "lock", "--from", "uv.lock")[0] == 0
    assert run(soup, tmp_path, "lock", "write", *options(PINNED))[0] == 0
    assert run("adapterbot", tmp_path, "lock", "check", *options(PINNED))[0] == 0
    assert run(soup, tmp_path, "env", "status")[0] == 0


def test_a_computed_lock_checks_in_soup(soup: Path, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "train.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "soup.yaml").write_text("base: ./base\ndata: {train: train.jsonl}\n")
    run("adapterbot", tmp_path, "env", "lock")
    _, said = run("adapterbot", tmp_path, "lock", "write", "--json")
    made = json.loads(said)
    assert made["dataset_sha"] == hashlib.sha256(b'{"a": 1}\n').hexdigest()
    hashes = {
        "--base-model": "./base",
        "--base-sha": made["base_model_sha"],
        "--dataset-sha": made["dataset_sha"],
        "--env-hash": made["env_hash"],
    }
    assert run(soup, tmp_path, "lock", "check", *options(hashes))[0] == 0
