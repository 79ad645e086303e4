"""The root command. Every other module of this package hangs its own command on it."""

from __future__ import annotations

from typing import Annotated

import typer

from adapterbot import __version__

app = typer.Typer(
    name="adapterbot",
    help="Reviewable pull requests for LoRA adapters.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"adapterbot {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Reviewable pull requests for LoRA adapters."""
