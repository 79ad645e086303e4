"""`adapterbot finish`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from adapterbot.cli import options
from adapterbot.cli.app import app
from adapterbot.cli.output import document, say
from adapterbot.marker import DEFAULT_NAME
from adapterbot.publishing import CheckMode, CommentMode, CommentWhen, Publishing


@app.command()
def finish(
    comment: options.CommentOption = CommentMode.UPDATE,
    comment_when: options.CommentWhenOption = CommentWhen.ALWAYS,
    check: options.CheckOption = CheckMode.AUTO,
    name: options.NameOption = DEFAULT_NAME,
    base: Annotated[
        str | None, typer.Option(envvar="ADAPTERBOT_BASE", help="As the gate was given it.")
    ] = None,
    head: Annotated[
        str | None, typer.Option(envvar="ADAPTERBOT_HEAD", help="As the gate was given it.")
    ] = None,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Report on the pull request if this job's gate was killed. The action's last step.

    ```console
    adapterbot finish
    ```

    Exit codes: 0 said, or nothing to say; 1 we failed; 2 bad input.
    """
    from adapterbot.commands import finish as command

    publishing = Publishing(comment, comment_when, check, name)
    said = command.run(out, publishing, base=base, head=head)
    if as_json:
        document(json.dumps({"said": said}))
    elif said:
        say("the gate was killed, and the pull request says so")
