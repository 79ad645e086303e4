"""`adapterbot serve`: a base model, a bank and mixtures, put together behind OpenAI's protocol."""

from __future__ import annotations

import errno
import re
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from adapterbot.commands.base_option import refuse_another, refuse_missing
from adapterbot.console import tame_library_logs
from adapterbot.errors import InputError, OurFailure
from adapterbot.importing import extras
from adapterbot.mole.artifact import MixtureFiles, read_mixture_dir

if TYPE_CHECKING:
    from fastapi import FastAPI

# Without a colon: behind it stands a tenant.
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class ServeOptions:
    """What was asked on the command line.

    Attributes:
        base: model directory, or a name on the Hub.
        bank: the bank's directory, if one is served.
        mixtures: what clients call each, and its directory.
        name: how clients call the base; the last part of `base`.
        open_to_all: ask for no API keys.
        rows: the most requests answered at once.
        waiting: the most requests that wait.
        per_tenant: the most requests of one tenant at once.
        seconds: the most a request may take.
        max_tokens: the most tokens of an answer.
        slots: users whose rows the device holds.
    """

    base: str
    bank: Path | None = None
    mixtures: Mapping[str, Path] = field(default_factory=dict)
    name: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    device: str | None = None
    open_to_all: bool = False
    rows: int = 64
    waiting: int = 256
    per_tenant: int = 16
    seconds: float = 120.0
    max_tokens: int = 1024
    slots: int = 1024


def build(options: ServeOptions) -> FastAPI:
    """The application, its model loaded, the bank and the mixtures attached.

    Raises:
        InputError: base, bank or a mixture cannot be used, or they do not fit.
        OurFailure: what it takes is not installed.
    """
    if options.slots < options.rows:
        raise InputError(
            f"{options.slots} is fewer than the {options.rows} rows of a batch",
            field="--slots",
            fix="give every row a slot",
        )
    refuse_missing(options.base)
    mixtures = _mixtures(options)
    # What is looked at first takes no torch, whose import takes seconds.
    with extras("serve,bank,eval", "serving"):
        from adapterbot.bank.serve.presence import Presence
        from adapterbot.bank.store import BankStore
    store = presence = None
    if options.bank is not None:
        store = BankStore(options.bank)
        presence = Presence(store)
        refuse_another(options.base, store.manifest.base_model, bank=options.bank)
    with extras("serve,bank,eval", "serving"):
        from adapterbot.bank.attached import attach_bank
        from adapterbot.bank.serve.app import application
        from adapterbot.bank.serve.live import Live
        from adapterbot.bank.serve.metrics import Metrics
        from adapterbot.bank.serve.scheduler import Limits, Scheduler
        from adapterbot.bank.serve.service import Service
        from adapterbot.eval.base_model import load_base
        from adapterbot.eval.forward import Forward
        from adapterbot.eval.sampling import Choice, next_tokens
        from adapterbot.eval.settings import EngineSettings, engine_settings
    # Answers are not compared with each other here: what is fastest may be measured and taken.
    settings = engine_settings(EngineSettings(deterministic=False), device=options.device)
    base = load_base(options.base, settings)
    forward = Forward(base.model)
    if forward.recurrent:
        raise InputError(
            "keeps a state beside keys and values, which rows cannot join and leave",
            file=options.base,
            fix="serve a transformer",
        )
    if base.context is not None:
        # One tenant's longer text would have everybody's row read with other frequencies.
        base = replace(base, context=min(base.context, forward.turn))
    # An empty bank is one, and false: its first user may come while it is served.
    bank = None if store is None else attach_bank(base.model, store, slots=options.slots)
    attached = {name: files.attach(base.model) for name, files in mixtures.items()}
    limits = Limits(
        rows=options.rows,
        waiting=options.waiting,
        per_tenant=options.per_tenant,
        seconds=options.seconds,
    )
    metrics = Metrics()
    return application(
        Service(
            name=_name(options),
            base=base,
            store=store,
            scheduler=Scheduler(base, Live(bank, attached), next_tokens, limits, metrics),
            metrics=metrics,
            choice=Choice,
            mixtures=frozenset(attached),
            open_to_all=options.open_to_all,
            limit=options.max_tokens,
            presence=presence,
        )
    )


def run(options: ServeOptions, ready: Callable[[str, str, tuple[str, ...]], None]) -> None:
    """Serves until it is told to stop, by SIGINT, SIGTERM or, with its terminal, SIGHUP: each is an
    orderly end.

    Args:
        ready: is told the address, the base's name and the mixtures' when the model is loaded.

    Raises:
        AdapterbotError: as `build`.
    """
    _refuse_taken(options.host, options.port)
    tame_library_logs()
    app = build(options)
    import uvicorn

    from adapterbot.bank.serve.connections import most_connections, settings
    from adapterbot.bank.serve.ending import Server

    rules = settings(options.seconds, most_connections(options.rows + options.waiting))
    ready(f"http://{options.host}:{options.port}", _name(options), tuple(options.mixtures))
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which uvicorn does not know
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    server = Server(
        uvicorn.Config(
            app,
            host=options.host,
            port=options.port,
            log_config=None,  # as all that is logged here
            log_level="info",
            **rules,
        )
    )
    with suppress(KeyboardInterrupt, SystemExit):  # whose codes are not ours: 3 would be a finding
        server.run()
    if not server.started:
        raise OurFailure("the server did not start", fix="see the lines above")


def _refuse_taken(host: str, port: int) -> None:
    """Says before a model is loaded what would be said after."""
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise InputError(
            f"nothing can listen on {host}:{port}: {error.strerror}",
            field="--port" if error.errno == errno.EADDRINUSE else "--host",
            fix="choose another",
        ) from error


def named(mixtures: Sequence[str]) -> dict[str, Path]:
    """What clients call each mixture, and its directory.

    Args:
        mixtures: each a directory, which it is then called after, or `name=directory`.

    Raises:
        InputError: a name cannot be one, or two have the same.
    """
    found: dict[str, Path] = {}
    for given in mixtures:
        name, _, directory = given.rpartition("=")
        name = name or Path(directory).resolve().name
        if not _MODEL.fullmatch(name) or name in found:
            raise InputError(
                f"cannot be called {name!r}",
                file=directory,
                field="--mixture",
                fix="write name=directory, a name of letters, digits, `.`, `_`, `-` for each",
            )
        found[name] = Path(directory)
    return found


def _mixtures(options: ServeOptions) -> dict[str, MixtureFiles]:
    if options.bank is None and not options.mixtures:
        raise InputError(
            "is missing, and so is --mixture", field="--bank", fix="name what is to be served"
        )
    if options.bank is None and not options.open_to_all:
        raise InputError(
            "is missing, so there are no API keys to ask for",
            field="--bank",
            fix="name a bank, or let everybody ask with --no-auth",
        )
    if _name(options) in options.mixtures:
        raise InputError(
            f"is {_name(options)!r}, which is the base's",
            field="--mixture",
            fix="write name=directory, with another name",
        )
    return {name: read_mixture_dir(path) for name, path in options.mixtures.items()}


def _name(options: ServeOptions) -> str:
    return options.name or Path(options.base).name
