"""`adapterbot serve`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from adapterbot.cli.app import app
from adapterbot.cli.options import Device, Json, a_number
from adapterbot.cli.output import document, say


@app.command()
def serve(
    base: Annotated[str, typer.Option(help="Base model: a directory, or its name on the Hub.")],
    bank: Annotated[Path | None, typer.Option(help="The bank's directory.")] = None,
    mixture: Annotated[
        list[str] | None,
        typer.Option(help="A mixture's directory, or name=directory. Repeatable."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Model name of the base.", show_default="its directory's name"),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    device: Device = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Ask for no API keys: anyone may use every model.")
    ] = False,
    rows: Annotated[int, typer.Option(min=1, help="Requests answered at a time.")] = 64,
    waiting: Annotated[
        int, typer.Option(min=1, help="Requests that may wait; further ones get 429.")
    ] = 256,
    per_tenant: Annotated[
        int, typer.Option(min=1, help="Requests of one user at a time; further ones get 429.")
    ] = 16,
    timeout: Annotated[
        float,
        typer.Option(min=0.1, callback=a_number, help="Time limit in seconds for one request."),
    ] = 120.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer, at most.")] = 1024,
    slots: Annotated[
        int, typer.Option(min=1, help="Users whose vectors are kept on the device.")
    ] = 1024,
    as_json: Json = False,
) -> None:
    """Serve the users of a bank, and mixtures, by OpenAI's protocol.

    ```console
    adapterbot serve --base ./base --bank ./users
    adapterbot bank key ./users user_1     # the key of the model base:user_1
    adapterbot serve --base ./base --mixture ./mixtures/dates --no-auth
    ```

    Users that `adapterbot bank` adds, changes or removes take effect with the next request.
    """
    from adapterbot.commands import serve as command

    def ready(url: str, model: str, mixtures: tuple[str, ...]) -> None:
        if as_json:
            document(json.dumps({"url": f"{url}/v1", "model": model, "mixtures": mixtures}))
        else:
            others = [f"{model}:TENANT"] if bank else []
            say(f"serving {', '.join([model, *others, *mixtures])} at {url}/v1")

    command.run(
        command.ServeOptions(
            base=base,
            bank=bank,
            mixtures=command.named(mixture or ()),
            name=name,
            host=host,
            port=port,
            device=device,
            open_to_all=no_auth,
            rows=rows,
            waiting=waiting,
            per_tenant=per_tenant,
            seconds=timeout,
            max_tokens=max_tokens,
            slots=slots,
        ),
        ready,
    )
