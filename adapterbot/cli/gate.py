"""`adapterbot gate`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from adapterbot.cli import options
from adapterbot.cli.app import app
from adapterbot.cli.output import leave, say, show
from adapterbot.marker import DEFAULT_NAME
from adapterbot.publishing import CheckMode, CommentMode, CommentWhen, Publishing


@app.command(cls=options.OnCluster)
def gate(
    base: Annotated[
        str | None,
        typer.Option(
            envvar="ADAPTERBOT_BASE", help="Ref to compare with.", show_default="the default branch"
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            envvar="ADAPTERBOT_HEAD", help="Ref to judge.", show_default="the files on disk"
        ),
    ] = None,
    config: options.Config = None,
    adapter: options.Adapter = None,
    suite: options.Suite = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            envvar="ADAPTERBOT_BASELINE",
            help="What to compare with: `base-ref` (the adapter at --base), `none` (the bare base "
            "model), or an adapter directory.",
        ),
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            envvar="ADAPTERBOT_CHECKPOINTS",
            help="Checkpoints to bisect on a regression.",
            show_default="archive in adapterbot.yaml",
        ),
    ] = None,
    publish: Annotated[
        Literal["github", "none"],
        typer.Option(
            envvar="ADAPTERBOT_PUBLISH",
            help="`github` posts a comment and a check; `none` only writes the report.",
        ),
    ] = "github",
    comment: options.CommentOption = CommentMode.UPDATE,
    comment_when: options.CommentWhenOption = CommentWhen.ALWAYS,
    check: options.CheckOption = CheckMode.AUTO,
    name: options.NameOption = DEFAULT_NAME,
    sequential: Annotated[
        bool,
        typer.Option(
            "--sequential",
            envvar="ADAPTERBOT_SEQUENTIAL",
            help="Stop evaluating as soon as every gated metric is decided.",
        ),
    ] = False,
    device: options.Device = None,
    engine: options.Engine = None,
    server: options.Server = None,
    ray: options.Ray = None,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Judge the adapters that a change touches, and report the verdict.

    On a GitHub runner the event says what to compare. Elsewhere `--base` and `--head` do:

    ```console
    adapterbot gate --base main --head my-branch
    ```

    Exit codes: 0 clean, 1 we failed, 2 bad input, 3 a finding.
    """
    from adapterbot.importing import for_good

    with for_good():
        from adapterbot.commands import gate as command
        from adapterbot.commands.report_files import exit_code
        from adapterbot.errors import AdapterbotError

    publishing = Publishing(comment, comment_when, check, name)
    written = command.run(
        command.GateOptions(
            base=base,
            head=head,
            config=config,
            adapter=adapter,
            suite=suite,
            baseline=baseline,
            checkpoints=checkpoints,
            device=device,
            engine=tuple(engine or ()),
            server=server,
            ray=ray,
            out=out,
            publishing=publishing if publish == "github" else None,
            sequential=sequential,
        )
    )
    for problem in written.report.problems:
        error = AdapterbotError(
            problem.message, file=problem.file, field=problem.field, fix=problem.fix
        )
        say(f"error: {error}", level="error")
    show(written, as_json)
    leave(exit_code(written.report))
