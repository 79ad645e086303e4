"""An OpenAI-compatible server on loopback that really serves a tiny model, as vLLM would.

One request at a time is computed, token by token, in the plainest way there is: what it answers is
the reference for the engine's batches. It can be told to fail in the ways that servers do.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import torch
import transformers

from adapterbot.weights import attach, load_adapter, read_adapter_dir

Fault = Callable[["_Handler"], None]


def status(code: int, **headers: str) -> Fault:
    """Answers with a status and nothing else."""

    def fail(handler: _Handler) -> None:
        handler.reply(code, {"error": {"message": "as told"}}, **headers)

    return fail


def hang_up(handler: _Handler) -> None:
    """Closes the connection without a word."""
    handler.close_connection = True


def stall(seconds: float) -> Fault:
    """Says nothing for a while, and then hangs up."""

    def fail(handler: _Handler) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return fail


def trickle(handler: _Handler) -> None:
    """Answers byte by byte for a minute, never silent for long."""
    handler.send_response(200)
    handler.send_header("Content-Length", "600")
    handler.end_headers()
    for _ in range(600):
        try:
            handler.wfile.write(b" ")
        except OSError:
            break
        time.sleep(0.1)
    handler.close_connection = True


def garbage(handler: _Handler) -> None:
    """A body that is no JSON, under a good status."""
    handler.reply(200, b"<html>gateway</html>")


class OpenAIServer:
    """Serves one base, and adapters loaded from directories while it runs.

    Attributes:
        faults: what goes wrong, one per request to come, before anything is computed.
        seen: (path, body, headers) of every request.
        most: how many requests there were at one time.
        lacks: paths that do not exist here.
    """

    def __init__(self, base: Path, *, key: str | None = None, echo: bool = True) -> None:
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        self.model = model.eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(base)
        self.key = key
        self.echo = echo
        self.best = True  # whether the likeliest tokens are listed too
        self.faults: deque[Fault] = deque()
        self.seen: list[tuple[str, Any, dict[str, str]]] = []
        self.lacks: set[str] = set()
        self.refuses: set[str] = set()
        self.most = 0
        self.delay = 0.0
        self._now = 0
        self._attachment = attach(self.model, {})
        self._adapters: dict[str, str] = {}
        self._counting = threading.Lock()
        self._computing = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._http.app = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    @property
    def served(self) -> list[str]:
        return ["tiny", *self._adapters]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def load(self, name: str, path: str) -> None:
        with self._computing:
            self._attachment.swap(name, load_adapter(read_adapter_dir(Path(path))))
            self._adapters[name] = path

    # ------------------------------------------------------------ what is computed

    def handle(self, path: str, body: Any) -> tuple[int, Any]:
        if path in self.lacks:
            return 404, {"detail": "Not Found"}
        if path == "/v1/models":
            return 200, {"object": "list", "data": [{"id": name} for name in self.served]}
        if path == "/v1/load_lora_adapter":
            self.load(body["lora_name"], body["lora_path"])
            return 200, b"Success: LoRA adapter added"
        if path == "/v1/unload_lora_adapter":
            with self._computing:
                del self._adapters[body["lora_name"]]
                self._attachment.drop(body["lora_name"])
            return 200, b"Success: LoRA adapter removed"
        if body["model"] not in self.served:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        if body.get("prompt") in self.refuses:
            return 400, {"error": {"message": "This model's maximum context length is 9 tokens."}}
        with self._computing:
            if path == "/v1/chat/completions":
                prompt = self.tokenizer.apply_chat_template(
                    body["messages"], tokenize=False, add_generation_prompt=True
                )
                ids = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
                choice: dict[str, Any] = {"message": {"content": self._write(ids, body)}}
            else:
                ids = self.tokenizer(body["prompt"])["input_ids"]
                choice = {"text": self._write(ids, body)}
                if body.get("echo") and self.echo:
                    choice["text"] = body["prompt"] + choice["text"]
                    values, best = self._weigh(ids, body)
                    choice["logprobs"] = {"token_logprobs": [*values, -0.5]}
                    if self.best:
                        choice["logprobs"]["top_logprobs"] = [*best, {"!": -0.5}]
        return 200, {"choices": [choice], "usage": {"prompt_tokens": len(ids)}}

    def _selected(self, name: str) -> Any:
        return self._attachment.selected(None if name == "tiny" else name)

    @torch.inference_mode()
    def _write(self, ids: list[int], body: Any) -> str:
        answer: list[int] = []
        with self._selected(body["model"]):
            for _ in range(body["max_tokens"]):
                logits = self.model(torch.tensor([ids + answer])).logits[0, -1]
                token = int(logits.argmax())
                if token == self.tokenizer.eos_token_id:
                    break
                answer.append(token)
        text: str = self.tokenizer.decode(answer, skip_special_tokens=True)
        for stop in body.get("stop") or ():
            text = text.partition(stop)[0]
        return text

    @torch.inference_mode()
    def _weigh(self, ids: list[int], body: Any) -> tuple[list[Any], list[Any]]:
        """Log P of every token, and the likeliest of its place beside it, as vLLM lists both."""
        with self._selected(body["model"]):
            logs = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        own = [float(logs[i, token]) for i, token in enumerate(ids[1:])]
        best = [{str(int(row.argmax())): float(row.max())} for row in logs[:-1]]
        for token, value, named in zip(ids[1:], own, best, strict=True):
            named[str(token)] = value
        return [None, *own], [None, *best]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        self._handle(None)

    def do_POST(self) -> None:
        self._handle(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _handle(self, body: Any) -> None:
        app: OpenAIServer = self.server.app
        app.seen.append((self.path, body, dict(self.headers)))
        with app._counting:
            app._now += 1
            app.most = max(app.most, app._now)
            fault = app.faults.popleft() if app.faults and body is not None else None
        try:
            time.sleep(app.delay)
            if fault:
                fault(self)
            elif app.key and self.headers.get("Authorization") != f"Bearer {app.key}":
                self.reply(401, {"error": {"message": "Invalid API key"}})
            else:
                self.reply(*app.handle(self.path, body))
        finally:
            with app._counting:
                app._now -= 1

    def reply(self, code: int, content: Any, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
