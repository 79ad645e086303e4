"""`adapterbot serve`: a base model and a bank, put together behind OpenAI's protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapterbot.errors import InputError, OurFailure

if TYPE_CHECKING:
    from fastapi import FastAPI


@dataclass(frozen=True)
class ServeOptions:
    """What was asked on the command line.

    Attributes:
        base: model directory, or a name on the Hub.
        bank: the bank's directory.
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
    bank: Path
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
    """The application, its model loaded and the bank attached.

    Raises:
        InputError: the base or the bank cannot be used, or they do not fit.
        OurFailure: what it takes is not installed.
    """
    try:
        from adapterbot.bank.serve.app import Service, application
        from adapterbot.bank.serve.metrics import Metrics
        from adapterbot.bank.serve.scheduler import Limits, Scheduler
        from adapterbot.bank.store import BankStore
        from adapterbot.bank.vera import attach_bank
        from adapterbot.eval.base_model import load_base
        from adapterbot.eval.sampling import Choice, next_tokens
        from adapterbot.eval.settings import EngineSettings
    except ImportError as error:
        raise OurFailure(
            f"the packages for serving do not load: {error}",
            fix="pip install 'adapterbot[serve,bank,eval]'",
        ) from error
    if options.slots < options.rows:
        raise InputError(
            f"{options.slots} is fewer than the {options.rows} rows of a batch",
            field="--slots",
            fix="give every row a slot",
        )
    store = BankStore(options.bank)
    base = load_base(options.base, EngineSettings(device=options.device or "auto"))
    if getattr(base.model, "_is_stateful", False):
        raise InputError(
            "keeps a state beside keys and values, which rows cannot join and leave",
            file=options.base,
            fix="serve a transformer",
        )
    attached = attach_bank(base.model, store, slots=options.slots)
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
            scheduler=Scheduler(base, attached, next_tokens, limits, metrics),
            metrics=metrics,
            choice=Choice,
            open_to_all=options.open_to_all,
            limit=options.max_tokens,
        )
    )


def run(options: ServeOptions, ready: Callable[[str, str], None]) -> None:
    """Serves until it is told to stop.

    Args:
        options: what was asked.
        ready: is told the address and the base's name when the model is loaded.

    Raises:
        AdapterbotError: as `build`.
    """
    app = build(options)
    import uvicorn

    ready(f"http://{options.host}:{options.port}", _name(options))

    uvicorn.run(app, host=options.host, port=options.port, log_level="info", access_log=False)


def _name(options: ServeOptions) -> str:
    return options.name or Path(options.base).name
