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
from adapterbot.cli.options import Json, output_option
from adapterbot.cli.output import document, line, say

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

Title = Annotated[str, typer.Argument(help="Title, one line.")]
AdapterDir = Annotated[Path, typer.Option("--adapter", help="The candidate: a PEFT directory.")]
Eval = Annotated[
    Path | None,
    typer.Option("--eval", help="Metric deltas: a gate's report.json, or Soup's JSON. At most 64."),
]
Samples = Annotated[
    Path | None,
    typer.Option("--samples", help="Sample diffs: likewise. At most 256, of 32 KiB each."),
]
DatasetDiff = Annotated[
    list[str] | None,
    typer.Option(
        "--dataset-diff",
        help="Change in the training data: a diff, our JSON, or two refs as OLD..NEW. Given "
        "twice: the old data and the new.",
    ),
]
Training = Annotated[
    str,
    typer.Option("--config", "-c", help="Training config that names the data, for OLD..NEW."),
]


@pr_app.command(_WRITE)
def write(
    title: Title,
    base_sha: Annotated[
        str,
        typer.Option(
            "--base-sha",
            help="What it starts from: a commit (40 hex digits) or a base model's digest (64).",
        ),
    ],
    adapter: AdapterDir,
    eval_json: Eval = None,
    samples: Samples = None,
    dataset_diff: DatasetDiff = None,
    config: Training = "soup.yaml",
    output: Annotated[Path | None, output_option("File to write.", "standard output")] = None,
    form: Annotated[
        Literal["markdown", "json"], typer.Option("--format", "-f", help="Output format.")
    ] = "markdown",
    push: Annotated[
        str | None,
        typer.Option(
            help="Post it as a comment on owner/repository#number, or update the one posted before."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    r"""Write an adapter pull request: base, data, weights, eval deltas and sample diffs.

    ```console
    adapterbot pr "Better politeness" --base-sha "$(git rev-parse main)" --adapter ./candidate \
        --eval eval_delta.json --samples sample_diffs.json -o PR.md
    ```

    Exit codes: 0 done, 1 we or GitHub failed, 2 bad input.
    """
    from adapterbot.commands import pr as command

    done = command.run(
        title,
        base_sha,
        adapter,
        command.EvidenceOptions(eval_json, samples, tuple(dataset_diff or ()), config),
        output=output,
        form="json" if as_json and output is None and push is None else form,
        push=push,
    )
    if output is None and push is None:
        _print(done.text, is_json=form == "json" or as_json)
    elif as_json:
        written = str(output) if output else None
        document(json.dumps({"output": written, "comment_url": done.comment_url}, indent=2))
    else:
        for place in (output, done.comment_url):
            if place:
                line(str(place))
    _say_notes(done.pull.notes)


@pr_app.command("open")
def open_(
    title: Title,
    adapter: AdapterDir,
    base: Annotated[
        str | None, typer.Option(help="Branch to merge into.", show_default="the default branch")
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(
            help="Path of the adapter in the repository.",
            show_default="where it is in this checkout",
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            help="File or folder to commit with it; a lock brings its .d folder along. Repeatable."
        ),
    ] = None,
    eval_json: Eval = None,
    samples: Samples = None,
    dataset_diff: DatasetDiff = None,
    config: Training = "soup.yaml",
    repo: Annotated[
        str | None,
        typer.Option(
            help="Repository, as owner/name.", show_default="GITHUB_REPOSITORY, else origin"
        ),
    ] = None,
    branch: Annotated[
        str | None,
        typer.Option(help="Branch to propose it from.", show_default="adapterbot/<adapter>"),
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="Label to add. Repeatable.")] = None,
    reviewer: Annotated[
        list[str] | None, typer.Option(help="Reviewer to ask: a login, or org/team. Repeatable.")
    ] = None,
    draft: Annotated[bool, typer.Option("--draft", help="Open it as a draft.")] = False,
    as_json: Json = False,
) -> None:
    r"""Open the pull request of an adapter, or update the one that is open.

    ```console
    adapterbot pr open "Retrained on March tickets" --adapter adapters/support --base main \
        --include soup.lock --include soup-env.lock --include data \
        --eval report.json --samples report.json --reviewer alice
    ```

    It speaks as the GitHub App of ADAPTERBOT_APP_ID and ADAPTERBOT_APP_KEY, or with GITHUB_TOKEN.
    Either needs `contents: write` and `pull-requests: write`.

    Exit codes: 0 it is there, 1 we or GitHub failed, 2 bad input.
    """
    from adapterbot.commands import pr_open as command
    from adapterbot.commands.pr import EvidenceOptions

    opened = command.run(
        command.OpenOptions(
            title=title,
            adapter=adapter,
            base=base,
            path=path,
            include=tuple(include or ()),
            evidence=EvidenceOptions(eval_json, samples, tuple(dataset_diff or ()), config),
            repository=repo,
            branch=branch,
            labels=tuple(label or ()),
            reviewers=tuple(reviewer or ()),
            draft=draft,
        )
    )
    outcome = opened.outcome
    if as_json:
        result = {
            "action": outcome.action.value,
            "url": outcome.url,
            "number": outcome.number,
            "commit": outcome.commit,
            "base_sha": outcome.base_sha,
        }
        document(json.dumps(result, indent=2))
    else:
        line(f"{outcome.action}  {outcome.url}" if outcome.url else outcome.action)
    _say_notes(opened.pull.notes)


def _say_notes(notes: tuple[str, ...]) -> None:
    for note in notes:
        say(f"note: {note}")


def _print(text: str, *, is_json: bool) -> None:
    """The document on standard output, whatever the terminal's width."""
    from adapterbot.gh.workflow import guarded

    # In a job's log, text that a model wrote must not be read as commands of the runner. A file
    # that standard output was sent to is no log.
    in_log = os.environ.get("GITHUB_ACTIONS") == "true" and not stat.S_ISREG(os.fstat(1).st_mode)
    shown = guarded(text) + "\n" if in_log and not is_json else text
    sys.stdout.buffer.write(shown.encode())
    sys.stdout.flush()
