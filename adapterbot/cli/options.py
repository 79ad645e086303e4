"""Options that several commands share, so that they are spelt and explained the same everywhere."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection
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
    typer.Option(
        envvar="ADAPTERBOT_DEVICE",
        help="Device to use: cpu, cuda, cuda:1 ….",
        show_default="a GPU if there is one",
    ),
]
Engine = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        envvar="ADAPTERBOT_ENGINE",
        help="Engine setting, as name=value: dtype, attn_implementation, quantization, device_map, "
        "token_budget or deterministic. Repeatable; overrides `engine:` in adapterbot.yaml.",
    ),
]
Server = Annotated[
    str | None,
    typer.Option(
        envvar="ADAPTERBOT_SERVER",
        help="Evaluate on this OpenAI-compatible server: its URL, including /v1.",
        show_default="evaluate on this machine",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        envvar="ADAPTERBOT_RAY",
        help="Evaluate on this Ray cluster: its address. `local`, or no value, uses every GPU (or "
        "CPU core) of this machine.",
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
    typer.Option(
        envvar="ADAPTERBOT_OUT", help="Folder for the report.", show_default=".adapterbot/"
    ),
]
Suite = Annotated[
    str | None,
    typer.Option(
        envvar="ADAPTERBOT_SUITE",
        help="Eval suite.",
        show_default="adapterbot.yaml's, or evals/suite.yaml",
    ),
]
Adapter = Annotated[
    str | None,
    typer.Option(
        envvar="ADAPTERBOT_ADAPTER", help="Adapter directory, relative to the repository root."
    ),
]
Config = Annotated[
    str | None,
    typer.Option(
        envvar="ADAPTERBOT_CONFIG",
        help="Configuration file.",
        show_default="adapterbot.yaml at the root or in .github/",
    ),
]


def base_option(usual: str) -> Any:
    """A base model; by default the usual one."""
    return typer.Option(help="Base model: a directory or a Hub name.", show_default=usual)


def output_option(what: str, usual: str) -> Any:
    """What to write, and where by default."""
    return typer.Option("--output", "-o", help=what, show_default=usual)


CommentOption = Annotated[
    CommentMode,
    typer.Option(
        "--comment",
        envvar="ADAPTERBOT_COMMENT",
        help="What to do with the previous comment: `update` edits it; `recreate` and `minimize` "
        "post a new one and delete or fold the old one; `off` posts no comment.",
    ),
]
CommentWhenOption = Annotated[
    CommentWhen,
    typer.Option(
        "--comment-when",
        envvar="ADAPTERBOT_COMMENT_WHEN",
        help="When to post a first comment: `always`, on `changes` or on `regressions`.",
    ),
]
CheckOption = Annotated[
    CheckMode,
    typer.Option(
        "--check",
        envvar="ADAPTERBOT_CHECK",
        help="Report the verdict as a check `run`, a commit `status`, not at all (`off`), or as "
        "whichever the token permits (`auto`).",
    ),
]
NameOption = Annotated[
    str,
    typer.Option(
        "--name",
        envvar="ADAPTERBOT_NAME",
        help="Name of the check and comment. Give a second gate on the same adapters another.",
    ),
]


def refuse_typed(context: typer.Context, names: Collection[str], problem: str, fix: str) -> None:
    """Refuses options that a command would not read, by their parameters' names; only those that
    stand on the command line: what the environment says may be meant for another command.

    Raises:
        InputError: with the flags of those that do.
    """
    sources = {name: context.get_parameter_source(name) for name in names}
    typed = {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}
    given = [one.opts[0] for one in context.command.params if one.name in typed]
    if given:
        raise InputError(problem, field=", ".join(given), fix=fix)


def one_from_environment(context: typer.Context, name: str, given: list[str] | None) -> list[str]:
    """The values of an argument that may stand several times. A variable holds one of them, which
    Typer takes apart at its spaces."""
    source = context.get_parameter_source(name)
    if source is None or source.name != "ENVIRONMENT":
        return given or []
    (variable,) = (one.envvar for one in context.command.params if one.name == name)
    return [os.environ[str(variable)].strip()] if given else []


_TIME = re.compile("".join(rf"(?:([0-9]{{1,6}}(?:\.[0-9]{{1,3}})?){unit})?" for unit in "dhms"))
_SECONDS = (86_400, 3600, 60, 1)


def a_number(value: float) -> float:
    """For a callback: refuses NaN, which lies within every range.

    Raises:
        typer.BadParameter: it is none.
    """
    if math.isnan(value):
        raise typer.BadParameter("nan is not a number")
    return value


def seconds_of(text: str) -> float:
    """The seconds of a `--budget` such as 90s, 45m or 1h30m.

    Raises:
        InputError: it is not a duration.
    """
    found = _TIME.fullmatch(text.strip().lower())
    if not text.strip() or found is None:
        raise InputError(
            f"{text[:40]!r} is not a duration", field="--budget", fix="write 90s, 45m or 1h30m"
        )
    numbers = (float(number or 0) for number in found.groups())
    return sum(number * unit for number, unit in zip(numbers, _SECONDS, strict=True))
