"""`adapterbot mole …`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapterbot.cli.app import app
from adapterbot.cli.options import Device, Json, base_option, output_option
from adapterbot.cli.output import document, line, say, wrote

if TYPE_CHECKING:
    from adapterbot.mole.train import Progress

mole_app = typer.Typer(help="A mixture of LoRAs: route every token to a few of N adapters.")
app.add_typer(mole_app, name="mole", no_args_is_help=True)

Mixture = Annotated[Path, typer.Argument(help="Directory of a mixture.")]


@mole_app.command("train")
def train(
    config: Annotated[
        Path, typer.Option("--config", "-c", help="soup.yaml with `task: moe_lora_routing`.")
    ] = Path("soup.yaml"),
    output: Annotated[
        Path | None, output_option("Directory to write.", "output in soup.yaml")
    ] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Train the gate over frozen task adapters. An interrupted run resumes.

    ```console
    adapterbot mole train --config soup.yaml -o mixtures/all
    ```
    """
    from adapterbot.commands import mole_train as command
    from adapterbot.console import listener_for

    listener = listener_for(os.environ)
    trained = command.train(config, _tell, listener, output=output, device=device)
    if as_json:
        document(trained.model_dump_json(indent=2))
    else:
        loss = "held-out loss" if trained.held_out else "training loss"
        line(f"{trained.path}  {len(trained.experts)} experts, {loss} {trained.loss:.4f}")


def _tell(progress: Progress) -> None:
    done = f"{progress.step}/{progress.steps}"
    if progress.validation is not None:
        done += f"  held-out loss {progress.validation:.4f}"
    elif progress.step % max(1, progress.steps // 20):
        return
    say(
        f"{done}  loss {progress.loss:.4f}  balance {progress.balance:.2f}"
        f"  entropy {progress.entropy:.2f}"
    )


@mole_app.command("info")
def info(mixture: Mixture, as_json: Json = False) -> None:
    """Show what a mixture is made of, and check its experts' digests.

    ```console
    adapterbot mole info mixtures/all
    ```
    """
    from adapterbot.mole.artifact import read_mixture_dir

    files = read_mixture_dir(mixture)
    manifest = files.manifest
    if as_json:
        document(manifest.model_dump_json(indent=2))
        return
    gate = manifest.gate
    line(f"base {manifest.base_model}")
    line(
        f"gate {gate.router} over {manifest.layers} layers, top"
        f" {gate.top_k} of {gate.num_task_adapters}, temperature {gate.temperature:g}"
    )
    for expert, found in zip(manifest.experts, files.parts, strict=True):
        ranks = sorted({entry.rank for entry in found.modules.values()})
        shown = ", ".join(map(str, ranks))
        line(f"  {expert.name}  {expert.path}  rank {shown}  {expert.digest[:12]}")


@mole_app.command("export")
def export(
    mixture: Mixture,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Directory to write; it must not exist.")
    ],
    as_json: Json = False,
) -> None:
    """Copy a mixture with its experts into one directory that stands alone.

    ```console
    adapterbot mole export mixtures/all -o release/all
    ```
    """
    from adapterbot.mole.artifact import read_mixture_dir

    made = read_mixture_dir(mixture).export(output)
    wrote(made, as_json=as_json)


@mole_app.command("route")
def route(
    mixture: Mixture,
    text: Annotated[str, typer.Argument(help="The prompt.")],
    base: Annotated[str | None, base_option("the one that the mixture names")] = None,
    max_tokens: Annotated[
        int, typer.Option(min=0, max=4096, help="Tokens of the answer, at most.")
    ] = 32,
    html: Annotated[Path | None, typer.Option(help="Write a heat map to this file.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Show which experts each token of a question, and of its answer, used.

    ```console
    adapterbot mole route mixtures/all "3. März 2024" --html routes.html
    ```
    """
    from rich.console import Console

    from adapterbot.commands import mole_route as command
    from adapterbot.commands.spared import spare
    from adapterbot.files.atomic import write_text
    from adapterbot.mole.routes import routes_page, terminal

    if html:
        spare(html, mixture, field="--html")
    routes = command.route(mixture, base, text, max_tokens=max_tokens, device=device)
    if html:
        write_text(html, routes_page(routes))
        say(f"heat map  {html}")
    if as_json:
        document(routes.model_dump_json(indent=2))
    else:
        Console().print(terminal(routes))
