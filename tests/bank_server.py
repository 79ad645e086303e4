"""`adapterbot serve`: as a process of its own, or in a thread of this one."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
import uvicorn
from tokenizers import Tokenizer, decoders, models

from adapterbot.bank.serve.connections import settings
from adapterbot.commands.serve import ServeOptions, build
from tests import command_line
from tests.bank_worlds import vera_bank
from tests.ports import free_port
from tests.tiny_models import VOCABULARY, save_base

SECONDS_TO_START = 120
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


def base_of_characters(folder: Path, **options: Any) -> Path:
    """A base whose tokens are characters: a random model's bytes would rarely be text."""
    save_base("llama", folder, **options)
    characters = [
        chr(i) if i in (10, *range(32, 127)) else chr(0x4E00 + i) for i in range(VOCABULARY)
    ]
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(characters)}, merges=[]))
    inner.decoder = decoders.Fuse()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=256)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def key(user: str) -> str:
    """The API key of a user of `users_with_keys`."""
    return f"ab-test-{user}"


def key_hash(user: str) -> bytes:
    """What a bank keeps of it."""
    return hashlib.sha256(key(user).encode()).digest()


def users_with_keys(base: Path, path: Path, count: int) -> Path:
    """A bank of random users u0, u1, …, each with a key."""
    with vera_bank(base, path, count, scale=0.6) as made:
        for index in range(count):
            made.add_key(f"u{index}", key_hash(f"u{index}"))
    return path


@contextmanager
def killed_afterwards(
    base: Path, bank: Path, **environment: str
) -> Iterator[tuple[int, command_line.Process]]:
    """The port of a server that answers, and its process; what still runs in the end is killed
    (SIGKILL), not stopped."""
    port = free_port()
    process = command_line.start(
        *("serve", "--base", base, "--bank", bank, "--port", str(port), "--device", "cpu"),
        env={**os.environ, **environment},
    )
    try:
        for _ in range(10 * SECONDS_TO_START):
            try:
                http.client.HTTPConnection("127.0.0.1", port).request("GET", "/healthz")
                break
            except OSError:
                time.sleep(0.1)
        yield port, process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@contextmanager
def serving(base: Path, *, patience: float = 30.0, **options: Any) -> Iterator[str]:
    """The server in a thread of this process; its address."""
    given = ServeOptions(base=str(base), device="cpu", **{"slots": 64, **options})
    rules = {**settings(given.seconds, 500, patience=patience), "timeout_graceful_shutdown": 3}
    server = uvicorn.Server(uvicorn.Config(build(given), port=0, log_level="error", **rules))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
