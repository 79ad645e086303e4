"""The root command. Every other module of this package hangs its own command on it."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from adapterbot import TOOL
from adapterbot.cli.output import interrupted, leave, refused, tell
from adapterbot.commands.interrupts import ignored
from adapterbot.errors import ExitCode, InputError

# click's own, which newer versions of typer carry under a name that is not theirs to give.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_JSON = "adapterbot.json"


class Commands(TyperGroup):
    """All commands. An interrupt that none of them has an answer to is a failure of ours, and no
    code of the shell's; what a command does not take is a JSON document where one was asked for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[_JSON] = "--json" in args
        try:
            return super().parse_args(ctx, args)
        except _UsageError as error:
            self._tell(ctx, error)
            raise

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            with ignored():
                interrupted(as_json=ctx.meta[_JSON])
                leave(ExitCode.FAILURE)
        except _UsageError as error:
            self._tell(ctx, error)
            raise

    def _tell(self, ctx: Any, error: Exception) -> None:
        """Tells a runner, which shows no box of lines, and whoever asked for JSON."""
        if os.environ.get("GITHUB_ACTIONS") == "true":
            tell(_input_error(error), as_json=ctx.meta[_JSON])
            leave(ExitCode.BAD_INPUT)
        if ctx.meta[_JSON]:
            refused(_input_error(error))


def _input_error(error: Any) -> InputError:
    """A usage error as one of ours."""
    options = getattr(getattr(error, "param", None), "opts", None)
    within = error.ctx.command_path if error.ctx else "adapterbot"
    return InputError(
        error.format_message().rstrip("."),
        field=options[0] if options else None,
        fix=f"see {within} --help",
    )


app = typer.Typer(
    name="adapterbot",
    cls=Commands,
    help="Reviewable pull requests for LoRA adapters.",
    epilog="Exit codes, the same everywhere: 0 clean, 1 we failed, 2 bad input, 3 a finding. "
    "With `--json` standard output is one JSON document.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(TOOL)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    log_format: Annotated[
        Literal["text", "json"],
        typer.Option(
            "--log-format",
            envvar="ADAPTERBOT_LOG_FORMAT",
            help="Format of the log on standard error.",
        ),
    ] = "text",
) -> None:
    """Reviewable pull requests for LoRA adapters."""
    del version  # its callback has printed it
    # Of the whole process and those that it starts: libraries log in the same way.
    os.environ["ADAPTERBOT_LOG_FORMAT"] = log_format
