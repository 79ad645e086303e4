"""Options that several commands share, so that they are spelt and explained the same everywhere."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from adapterbot.errors import InputError
from adapterbot.publishing import CheckMode, CommentMode, CommentWhen

REPORT = Path(".adapterbot/report.json")
"""Where a gate and a bisect that nobody told otherwise leave their report, in the checkout."""
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Device = Annotated[
    str | None,
    typer.Option(envvar="ADAPTERBOT_DEVICE", help="cpu, cuda, cuda:1 …; the best there is."),
]
Engine = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        envvar="ADAPTERBOT_ENGINE",
        help="How to compute, as name=value: dtype, attn_implementation, quantization, device_map, "
        "token_budget, deterministic. Repeatable; wins over `engine:` in adapterbot.yaml.",
    ),
]
Server = Annotated[
    str | None,
    typer.Option(
        envvar="ADAPTERBOT_SERVER",
        help="OpenAI-compatible server to evaluate on, up to and with /v1; this machine.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        envvar="ADAPTERBOT_RAY",
        help="Ray cluster to evaluate on; `local`, or no value, is every GPU, or processor, of "
        "this machine.",
    ),
]


class OnCluster(TyperCommand):
    """A command with the option `Ray`, which may stand without a value; Typer knows no such."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer's, with `local` for the value that `--ray` lacks."""
        end = args.index("--") if "--" in args else len(args)
        given = [
            "--ray=local" if word == "--ray" and after.startswith("-") else word
            for word, after in zip(args[:end], [*args[1:end], "--"], strict=False)
        ]
        return super().parse_args(ctx, [*given, *args[end:]])


Out = Annotated[
    Path | None,
    typer.Option(envvar="ADAPTERBOT_OUT", help="Folder for the report; `.adapterbot/`."),
]
Suite = Annotated[
    str | None, typer.Option(envvar="ADAPTERBOT_SUITE", help="Eval suite; `evals/suite.yaml`.")
]
Adapter = Annotated[
    str | None,
    typer.Option(envvar="ADAPTERBOT_ADAPTER", help="Adapter directory, from the repository root."),
]
Config = Annotated[
    str | None,
    typer.Option(envvar="ADAPTERBOT_CONFIG", help="adapterbot.yaml; at the root or in `.github/`."),
]
# Whether a file may be read is found out by reading it, and told like everything else about it.
SoupYaml = Annotated[
    Path, typer.Option("--config", "-c", readable=False, help="The training config.")
]
CommentOption = Annotated[
    CommentMode,
    typer.Option(
        "--comment",
        envvar="ADAPTERBOT_COMMENT",
        help="What becomes of the last run's comment: `update` edits it, `recreate` and "
        "`minimize` post anew and delete or fold the old one, `off` leaves comments alone.",
    ),
]
CommentWhenOption = Annotated[
    CommentWhen,
    typer.Option(
        "--comment-when",
        envvar="ADAPTERBOT_COMMENT_WHEN",
        help="What is worth a first comment: `always`, `changes` or `regressions`.",
    ),
]
CheckOption = Annotated[
    CheckMode,
    typer.Option(
        "--check",
        envvar="ADAPTERBOT_CHECK",
        help="A check `run`, a commit `status`, `off`, or `auto`: what the token may do.",
    ),
]
NameOption = Annotated[
    str,
    typer.Option(
        "--name",
        envvar="ADAPTERBOT_NAME",
        help="Name of the check and of the comment, for a second gate on the same adapters.",
    ),
]


def refuse_typed(context: typer.Context, names: Collection[str], problem: str, fix: str) -> None:
    """Refuses what was typed of some options, by their parameters' names.

    Raises:
        InputError: with the flags of those that were.
    """
    given = [parameter.opts[0] for parameter in typed(context) if parameter.name in names]
    if given:
        raise InputError(problem, field=", ".join(given), fix=fix)


def typed(context: typer.Context) -> Iterator[Any]:
    """The options and arguments that stand on the command line, as their parameters: what a command
    would not read is refused only where somebody wrote it."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            yield parameter
