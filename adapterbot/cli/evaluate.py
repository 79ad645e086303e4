"""`adapterbot eval` and `adapterbot delta`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapterbot.cli import options
from adapterbot.cli.app import app
from adapterbot.cli.output import document, leave, lines, say, show

if TYPE_CHECKING:
    from adapterbot.records import Evaluated, TaskMean


@app.command("eval", cls=options.OnCluster)
def evaluate(
    adapters: Annotated[
        list[str], typer.Argument(help="Adapter directories; `none` is the bare base model.")
    ],
    base: Annotated[str | None, options.base_option("base in soup.yaml")] = None,
    config: Annotated[
        # Whether it may be read is found out by reading it, and told like everything else about it.
        Path,
        typer.Option("--config", "-c", readable=False, help="The training config."),
    ] = Path("soup.yaml"),
    suite: Annotated[
        str | None,
        typer.Option(
            envvar="ADAPTERBOT_SUITE", help="Eval suite.", show_default="evals/suite.yaml"
        ),
    ] = None,
    device: options.Device = None,
    engine: options.Engine = None,
    server: options.Server = None,
    ray: options.Ray = None,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Evaluate adapters against a suite, and keep every sample's result.

    The base is loaded once for all of them, and not at all if everything is cached. Answers are
    cached as they arrive, so a run that was killed resumes, and no answer is computed twice.

    ```console
    adapterbot eval adapters/dates checkpoints/checkpoint-0440 --suite evals/suite.yaml
    ```

    Device, precision and server come from `adapterbot.yaml`, unless options say otherwise.

    Results are written to `.adapterbot/results/`, one JSONL file per adapter; `adapterbot delta`
    compares two of them.

    Exit codes: 0 evaluated, 1 we failed, 2 bad input.
    """
    from adapterbot.commands import evaluate as command

    found = command.run(
        command.EvalOptions(
            adapters=tuple(adapters),
            base=base,
            config=str(config),
            suite=suite,
            device=device,
            engine=tuple(engine or ()),
            server=server,
            ray=ray,
            out=out,
        )
    )
    if as_json:
        document(found.model_dump_json(indent=2))
    else:
        lines(_table(found))
    for adapter in found.adapters:
        say(f"results  {adapter.results}")


@app.command()
def delta(
    baseline: Annotated[
        Path, typer.Argument(help="Results that `adapterbot eval` or a gate saved.")
    ],
    candidate: Annotated[Path, typer.Argument(help="The results to judge against them.")],
    alpha: Annotated[
        float,
        typer.Option(
            help="Chance of a false alarm: of calling anything regressed if nothing changed."
        ),
    ] = 0.05,
    out: Annotated[
        Path | None,
        typer.Option(
            envvar="ADAPTERBOT_OUT",
            help="Folder for the report.",
            show_default=".adapterbot/delta/",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Compare two saved results, and judge them as the gate would.

    ```console
    adapterbot delta .adapterbot/results/adapters-dates.jsonl new.jsonl
    ```

    `adapterbot explain .adapterbot/delta/report.json` gives the reasons. The gate's own report is
    left as it is.

    Exit codes: 0 clean, 1 we failed, 2 bad input, 3 a regression.
    """
    from adapterbot.commands import delta as command
    from adapterbot.commands.report_files import exit_code
    from adapterbot.errors import InputError

    if not 0 < alpha < 0.5:
        raise InputError(f"cannot be {alpha}", field="--alpha", fix="use a chance such as 0.05")
    written = command.run(baseline, candidate, alpha=alpha, out=out)
    show(written, as_json)
    leave(exit_code(written.report))


def _table(found: Evaluated) -> str:
    """A row per task, a column per adapter."""
    head = ["", *(adapter.adapter.label for adapter in found.adapters)]
    tasks = [adapter.tasks for adapter in found.adapters]
    rows = [[row[0].task, *map(_mean, row)] for row in zip(*tasks, strict=True)]
    if any(adapter.weighted is not None for adapter in found.adapters):
        shown = [
            "–" if adapter.weighted is None else f"{100 * adapter.weighted:.1f} %"
            for adapter in found.adapters
        ]
        rows.append(["weighted", *shown])
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    )


def _mean(task: TaskMean) -> str:
    if task.mean is None:
        return "no score"
    shown = f"{100 * task.mean:.1f} %" if task.unit == "fraction" else f"{task.mean:.4g}"
    return f"{shown} ({task.missing} missing)" if task.missing else shown
