"""A server's model as one that answers, under each adapter that it serves or loads.

An adapter's name on the server holds the digest of its files: a name alone could stand for other
weights than those we judge.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from pydantic import JsonValue

from adapterbot.config import Server
from adapterbot.errors import InputError, OurFailure
from adapterbot.eval.answers import Answer
from adapterbot.eval.questions import Composite, Identity, Ids, Question, Subject, Unanswered
from adapterbot.eval.remote.asking import Asking
from adapterbot.eval.remote.background import Background
from adapterbot.eval.remote.http import NO_SUCH_THING, Client, Refused
from adapterbot.weights.peft_dir import AdapterFiles

_DIGEST_DIGITS = 16
_LOAD, _UNLOAD = "/load_lora_adapter", "/unload_lora_adapter"


class ServerModel:
    """One base model of a server, and the adapters that it serves or loads."""

    def __init__(self, name: str, server: Server, key: str | None) -> None:
        """Asks the server what it serves.

        Args:
            name: how the base is named here.
            server: where it is, and what base and adapters are called there.

        Raises:
            InputError: it does not serve the base, or wants another key.
            OurFailure: it does not answer.
        """
        self.name = name
        self._server = server
        self._base = self._asked_for = server.model or name
        with ExitStack() as unless_it_serves:
            self._background = Background()
            unless_it_serves.callback(self._background.close)
            self._client = self._background.run(self._connected(server, key))
            unless_it_serves.callback(self._disconnect)
            served = self._served()
            if self._base not in served:
                raise InputError(
                    f"serves no model {self._base!r}, but "
                    f"{', '.join(sorted(served)[:5]) or 'none'}",
                    file=server.url,
                    field="server.model",
                    fix="say what the base model is called there",
                )
            unless_it_serves.pop_all()

    @staticmethod
    async def _connected(server: Server, key: str | None) -> Client:
        # Made inside the loop that it belongs to.
        return Client(server.url, key, concurrency=server.concurrency, timeout=server.timeout)

    @property
    def device(self) -> str:
        return "a server"

    @property
    def gpus(self) -> int:
        return 0

    @property
    def dtype(self) -> str:
        return ""

    def identity(self) -> Identity:
        """Where it was asked. What runs there may change without our knowing, unless the config
        names a `revision`; so only then is anything kept between runs."""
        settings: dict[str, JsonValue] = {
            "server": self._server.url,
            "model": self._base,
            "revision": self._server.revision,
        }
        return Identity(f"{self._server.url} {self._base}", settings, {})

    @contextmanager
    def under(self, files: Subject | None, digest: str) -> Iterator[None]:
        """Ask for the adapter inside; one that the server had to load is unloaded after.

        Raises:
            InputError: the server neither serves nor loads it.
        """
        if files is None:
            yield
            return
        wanted = self._server.adapter.format(digest=digest[:_DIGEST_DIGITS])
        loaded = None
        if wanted not in self._served():
            # Another job may load the same adapter, and unload it before we are done.
            wanted = loaded = f"{wanted}-{secrets.token_hex(4)}"
            self._load(files, loaded, digest)
        self._asked_for = wanted
        try:
            yield
        finally:
            self._asked_for = self._base
            if loaded:
                # One that stays loaded costs the server a place, and our results nothing.
                with suppress(Refused, OurFailure):
                    self._background.run(self._client.post(_UNLOAD, {"lora_name": loaded}))

    def _load(self, files: Subject, name: str, digest: str) -> None:
        def refused(problem: str, fix: str) -> InputError:
            return InputError(problem, file=self._server.url, field=files.shown, fix=fix)

        expected = self._server.adapter.format(digest=digest[:_DIGEST_DIGITS])
        if not isinstance(files, AdapterFiles):
            raise refused(
                f"serves no model {expected!r}, and a mixture cannot be loaded while it runs",
                f"serve {files.shown} under this name (`adapterbot serve --mixture`)",
            )
        if not self._server.load:
            fix = f"serve {files.shown} under this name, or set `load: true`"
            raise refused(f"serves no adapter {expected!r}", fix)
        try:
            body: JsonValue = {"lora_name": name, "lora_path": str(files.path.absolute())}
            self._background.run(self._client.post(_LOAD, body))
        except Refused as error:
            if error.status in NO_SUCH_THING:
                raise refused(
                    f"serves no adapter {expected!r}, and loads none while it runs",
                    "serve it under this name (vLLM: --lora-modules), or let it be loaded "
                    "(vLLM: VLLM_ALLOW_RUNTIME_LORA_UPDATING=True)",
                ) from error
            fix = "the server must see this path, and support this kind of adapter"
            raise refused(f"does not load the adapter: {error}", fix) from error

    def _served(self) -> set[str]:
        try:
            reply = self._background.run(self._client.get("/models"))
            return {str(model["id"]) for model in reply["data"]}
        except (Refused, TypeError, LookupError) as error:
            raise InputError(
                "does not list its models as the OpenAI API does",
                file=self._server.url,
                field="server.url",
                fix="name the address up to and with /v1",
            ) from error

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer | Unanswered]]:
        """Each question as one request or a few, bounded in number at any time.

        Raises:
            InputError: the server lacks what a task needs.
            OurFailure: it stopped answering.
        """
        model, asking = self._asked_for, Asking(self._client, self._server.url)
        return self._background.as_completed([asking.answer(model, one) for one in questions])

    def tokens(self, text: str) -> Ids:  # noqa: ARG002 - of `Model`
        """Nothing: a server takes no drafts."""
        return ()

    def shares(self, composite: Composite, answered: object) -> tuple[float, ...]:  # noqa: ARG002
        """Nothing: a server tells what it says, not how."""
        return ()

    def close(self) -> None:
        """Closes the connections."""
        self._disconnect()
        self._background.close()

    def _disconnect(self) -> None:
        self._background.run(self._client.close())
