"""`adapterbot diff` and `adapterbot scan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapterbot.cli.app import app
from adapterbot.cli.options import Json
from adapterbot.cli.output import document, leave, lines
from adapterbot.errors import ExitCode

if TYPE_CHECKING:
    from adapterbot.records.inspection import AdapterDiff, ScanReport


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(help="Adapter directory.")],
    b: Annotated[Path, typer.Argument(help="The adapter directory to compare it with.")],
    as_json: Json = False,
) -> None:
    """Compare two adapters by what they do to the weights, module by module.

    Measured on ΔW = s·B·A, so two files that only split it differently are 0 apart.

    ```console
    adapterbot diff adapters/dates checkpoints/checkpoint-0440
    ```

    Exit codes: 0 compared, 1 we failed, 2 bad input.
    """
    from adapterbot.commands import inspect as command

    found = command.diff(a, b)
    if as_json:
        document(found.model_dump_json(indent=2))
    else:
        lines(_diff_text(found))


@app.command()
def scan(
    adapter: Annotated[Path, typer.Argument(help="Adapter directory.")],
    base: Annotated[
        str | None, typer.Option(help="Base model that it must fit: a directory or a Hub name.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check an adapter's weights for damage, without running it.

    NaN and infinity, modules that were never trained, a ΔW far outside those of its like, another
    base model.

    ```console
    adapterbot scan adapters/dates --base ./base
    ```

    Exit codes: 0 sound (there may be warnings), 1 we failed, 2 bad input, 3 it is not.
    """
    from adapterbot.commands import inspect as command

    found = command.scan(adapter, base)
    if as_json:
        document(found.model_dump_json(indent=2))
    else:
        lines(_scan_text(found))
    leave(ExitCode.FINDING if found.fails else ExitCode.CLEAN)


def _norm(value: float) -> str:
    """Four digits, zeros at their end too, so that a column lines up."""
    return f"{value:#.4g}".rstrip(".").rjust(9)


def _diff_text(found: AdapterDiff) -> str:
    width = max((len(module.module) for module in found.modules), default=6)
    norms = f"{'‖ΔW a‖':>9}  {'‖ΔW b‖':>9}  {'‖a − b‖':>9}"
    rows = [f"{'module':<{width}}  {norms}  relative  cosine  eff. rank of a − b"]
    rows += [
        f"{m.module:<{width}}  {_norm(m.norm_a)}  {_norm(m.norm_b)}  {_norm(m.distance)}"
        f"  {m.relative:>8.3f}  {_angle(m.cosine)}  {m.effective_rank_difference:>18.2f}"
        for m in found.modules
    ]
    rows += [
        f"{w.parameter}: "
        + ("only in one" if w.distance is None else f"saved whole, {w.distance:.4g} apart")
        for w in found.whole
    ]
    rows.append(
        f"{'all':<{width}}  {_norm(found.norm_a)}  {_norm(found.norm_b)}  {_norm(found.distance)}"
        f"  {found.relative:>8.3f}  {_angle(found.cosine)}"
    )
    return "\n".join(rows)


def _angle(cosine: float | None) -> str:
    return "     –" if cosine is None else f"{cosine:>6.3f}"


def _scan_text(found: ScanReport) -> str:
    rows = [
        f"{finding.severity.value:<5} {finding.kind}: {finding.where}: {finding.message}"
        + (f" ({finding.fix})" if finding.fix else "")
        for finding in found.findings
    ]
    head = f"{found.adapter}: {found.peft_type or 'not readable'}, {found.modules} modules, "
    norm = "" if found.norm is None else f", ‖ΔW‖ = {found.norm:.4g}"
    rows.append(head + f"{found.parameters:,} numbers{norm}")
    rows.append("not sound" if found.fails else "sound")
    return "\n".join(rows)
