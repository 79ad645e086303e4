"""`adapterbot pr` and `adapterbot pr open`."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer.core import TyperGroup

from adapterbot.cli.app import app
from adapterbot.cli.options import Json
from adapterbot.cli.output import say

_WRITE = "write"


class _TitleFirst(TyperGroup):
    """`pr "title" …` is short for `pr write "title" …`: a title is no command's name."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if args and args[0] not in {*self.commands, "--help"}:
            args = [_WRITE, *args]
        return super().parse_args(ctx, args)


pr_app = typer.Typer(
    cls=_TitleFirst,
    help='Adapter pull requests. `adapterbot pr "title" …` is short for `adapterbot pr write`.',
)
app.add_typer(pr_app, name="pr", no_args_is_help=True)

Title = Annotated[str, typer.Argument(help="One line.")]
AdapterDir = Annotated[Path, typer.Option("--adapter", help="The candidate: a PEFT directory.")]
Eval = Annotated[
    Path | None,
    typer.Option("--eval", help="Deltas: Soup's JSON, or the report.json of `gate`. At most 64."),
]
Samples = Annotated[
    Path | None,
    typer.Option("--samples", help="Sample diffs: likewise. At most 256, of 32 KiB each."),
]
DatasetDiff = Annotated[
    list[str] | None,
    typer.Option(
        "--dataset-diff",
        help="A file (JSON of ours, or a diff), two refs as OLD..NEW, or twice: old and new data.",
    ),
]
Training = Annotated[
    str,
    typer.Option("--config", "-c", help="The training config whose data two refs are compared in."),
]


@pr_app.command(_WRITE)
def write(
    title: Title,
    base_sha: Annotated[
        str, typer.Option("--base-sha", help="What it starts from: 40 or 64 hex digits.")
    ],
    adapter: AdapterDir,
    eval_json: Eval = None,
    samples: Samples = None,
    dataset_diff: DatasetDiff = None,
    config: Training = "soup.yaml",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; standard output.")
    ] = None,
    form: Annotated[
        Literal["markdown", "json"], typer.Option("--format", "-f", help="Of what is written.")
    ] = "markdown",
    push: Annotated[
        str | None,
        typer.Option(help="Post it as a comment on owner/repository#number, or update ours."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write an adapter pull request: base, data, weights, eval deltas and sample diffs.

        adapterbot pr "Better politeness" --base-sha $(git rev-parse main) --adapter ./candidate
            --eval eval_delta.json --samples sample_diffs.json -o PR.md

    Exit codes: 0 done, 1 we or GitHub failed, 2 bad input.
    """
    from adapterbot.commands import pr as command

    done = command.run(
        command.PrOptions(
            title=title,
            base_sha=base_sha,
            adapter=adapter,
            evidence=command.EvidenceOptions(eval_json, samples, tuple(dataset_diff or ()), config),
            output=output,
            format="json" if as_json and output is None and push is None else form,
            push=push,
        )
    )
    if output is None and push is None:
        _print(done.text, is_json=form == "json" or as_json)
    elif as_json:
        written = str(output) if output else None
        typer.echo(json.dumps({"output": written, "comment_url": done.comment_url}, indent=2))
    else:
        for place in (output, done.comment_url):
            if place:
                typer.echo(place)
    for note in done.pull.notes:
        from adapterbot.gh.workflow import harmless

        say(harmless(f"note: {note}"))


def _print(text: str, *, is_json: bool) -> None:
    """The document on standard output, whatever the terminal's width."""
    from adapterbot.gh.workflow import guarded

    # In a job's log, text that a model wrote must not be read as commands of the runner. A file
    # that standard output was sent to is no log.
    in_log = os.environ.get("GITHUB_ACTIONS") == "true" and not stat.S_ISREG(os.fstat(1).st_mode)
    shown = guarded(text) + "\n" if in_log and not is_json else text
    sys.stdout.buffer.write(shown.encode())
    sys.stdout.flush()
