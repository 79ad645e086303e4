"""`adapterbot merge`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapterbot.cli import options
from adapterbot.cli.app import app
from adapterbot.cli.output import document, lines
from adapterbot.errors import InputError
from adapterbot.merge.names import DRAWING, SPARSE, Search, Strategy

if TYPE_CHECKING:
    from adapterbot.records.merge import MergeRecord

_OF_A_SEARCH = frozenset(
    {
        "suite",
        "budget",
        "search",
        "population",
        "generations",
        "race",
        "resume",
        "device",
        "engine",
        "ray",
    }
)


@app.command(cls=options.OnCluster)
def merge(
    context: typer.Context,
    adapter: Annotated[
        list[Path], typer.Option("--adapter", "-a", help="Adapter directory. 2 to 16 of them.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory to write.")],
    strategy: Annotated[
        Strategy,
        typer.Option(
            help="`cmaes` searches for the weights with --eval; the others are given them."
        ),
    ] = Strategy.CMAES,
    suite: Annotated[
        Path | None, typer.Option("--eval", help="Eval suite that the search is judged by.")
    ] = None,
    budget: Annotated[
        str, typer.Option(help="Time for the search, 60s to 24h: 90s, 45m, 1h30m.")
    ] = "1h",
    search: Annotated[
        Search,
        typer.Option(
            help="What to search: one weight per adapter on the simplex, the same for each group "
            "of layers, or weights of any sign."
        ),
    ] = Search.WEIGHTS,
    population: Annotated[
        int | None, typer.Option(min=2, max=256, help="Candidates per generation.")
    ] = None,
    generations: Annotated[
        int, typer.Option(min=1, max=10_000, help="Stop after this many generations.")
    ] = 10_000,
    race: Annotated[
        bool, typer.Option(help="Stop evaluating a candidate once it can no longer be selected.")
    ] = True,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a search that was interrupted.")
    ] = False,
    weight: Annotated[
        list[float] | None,
        typer.Option(
            "--weight",
            "-w",
            help="Weight of each --adapter, in order. Repeatable.",
            show_default="uniform",
        ),
    ] = None,
    expression: Annotated[
        str | None,
        typer.Option(help="Task arithmetic over directory names: 'coder + 0.5*math - toxic'."),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=2**16,
            help="Largest rank of the result.",
            show_default="the adapters' ranks, added",
        ),
    ] = None,
    density: Annotated[
        float, typer.Option(help="Share of ΔW that ties, dare and magnitude-prune keep.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Random seed.")] = 0,
    base: Annotated[str | None, options.base_option("the one that the adapters name")] = None,
    device: options.Device = None,
    engine: options.Engine = None,
    ray: options.Ray = None,
    as_json: options.Json = False,
) -> None:
    r"""Merge adapters of one base into one, with weights found by evolutionary search.

    ```console
    adapterbot merge --strategy cmaes --adapter ./lora_a --adapter ./lora_b \
        --adapter ./lora_c --eval ./suite.yaml --budget 1h --output ./merged
    ```

    Weights are chosen on one half of the suite; the table shows the other half. The output is a
    PEFT directory with merge.json and scores.svg. Ctrl-C writes the best so far.

    Exit codes: 0 merged, 1 we failed, 2 bad input.
    """
    from adapterbot.commands import merge as command
    from adapterbot.commands.merge_options import MergeOptions, SearchOptions
    from adapterbot.console import listener_for
    from adapterbot.eval.settings import engine_settings

    searches = strategy is Strategy.CMAES
    if searches and (weight or expression):
        other = Strategy.LINEAR if weight else Strategy.TASK_ARITHMETIC
        raise InputError(
            "is what the search is for",
            field="--weight" if weight else "--expression",
            fix=f"say --strategy {other}",
        )
    _refuse_ignored(context, strategy)
    if weight and expression:
        raise InputError("has the weights already", field="--expression", fix="drop --weight")
    asked = MergeOptions(
        adapters=tuple(adapter),
        output=output,
        strategy=strategy,
        weights=tuple(weight or ()),
        expression=expression,
        rank=rank,
        density=density,
        seed=seed,
        base=base,
    )
    how = None
    if searches and suite is not None:
        how = SearchOptions(
            suite=suite,
            budget=parse_budget(budget),
            search=search,
            population=population,
            generations=generations,
            racing=race,
            resume=resume,
            settings=engine_settings(None, engine or (), device),
            ray=ray,
        )
    record = command.run(asked, how, listener_for(os.environ))
    if as_json:
        document(record.model_dump_json(indent=2))
    else:
        lines(_shown(record))


def parse_budget(text: str) -> int:
    """The seconds of a search.

    Raises:
        InputError: it is not a duration, or not from 60 seconds to 24 hours.
    """
    seconds = options.seconds_of(text)
    if not 60 <= seconds <= 24 * 3600:
        raise InputError(
            f"is {seconds:,.0f} seconds", field="--budget", fix="give it between 60s and 24h"
        )
    return round(seconds)


def _refuse_ignored(context: typer.Context, strategy: Strategy) -> None:
    """An option that was typed and that this strategy would not read."""
    if strategy is not Strategy.CMAES:
        options.refuse_typed(context, _OF_A_SEARCH, "is for a search", "use --strategy cmaes")
    for name, readers in (("density", SPARSE), ("seed", DRAWING)):
        if strategy not in readers:
            fix = f"leave it out, or use {', '.join(sorted(readers))}"
            options.refuse_typed(context, {name}, f"means nothing to {strategy}", fix)


def _shown(record: MergeRecord) -> str:
    from adapterbot.wording import gained

    lines = []
    if record.search:
        names = [Path(one.path).name for one in record.inputs]
        lines += [
            f"{'':<20} {'choose':>7} {'report':>7}  against the best single adapter   weights"
        ]
        for row in record.search.finalists:
            change = (
                f"{row.difference:+.3f}  [{row.low:+.3f}, {row.high:+.3f}]"
                if row.difference is not None and row.low is not None and row.high is not None
                else "–"
            )
            weights = " ".join(f"{w:.2f}" for w in row.weights[0])
            more = " …" if len(row.weights) > 1 else ""
            mark = "→" if row.name == record.search.winner else " "
            lines.append(
                f"{mark} {row.name:<18} {_score(row.selection)} {_score(row.report)}"
                f"  {change:<32}  {weights}{more}" + (f"  failed: {row.failed}" * bool(row.failed))
            )
        lines.append(gained(record.search))
        lines.append(
            f"{record.search.stop.value} after {record.search.seconds:.0f} s: "
            f"{record.search.candidates} candidates, {record.search.evaluated:,} answers, "
            f"{record.search.failed} failed; weights are of {', '.join(names)}"
        )
    else:
        weights = ", ".join(
            f"{Path(one.path).name} {weight:g}"
            for one, weight in zip(record.inputs, record.weights[0], strict=True)
        )
        lines.append(f"{record.strategy}: {weights}")
    if record.truncation is not None:
        cut = f"lost {record.truncation:.2%} of ΔW's norm to the limit on ranks"
        measured = "; what the table says was measured before that"
        lines.append(cut + measured * bool(record.search and record.truncation))
    lines.append(f"wrote {record.output}")
    return "\n".join(lines)


def _score(value: float | None) -> str:
    return "      –" if value is None else f"{value:7.3f}"
