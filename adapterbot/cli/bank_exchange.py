"""`adapterbot bank import` and `bank export`: users from elsewhere, and for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from adapterbot.cli.bank import Bank, Replace, bank_app, show
from adapterbot.cli.options import Json, base_option


@bank_app.command("import")
def bank_import(
    bank: Bank,
    sources: Annotated[
        list[str],
        typer.Argument(help="PEFT directories (user=DIR), Soup's bank.json, exported files."),
    ],
    base: Annotated[str | None, base_option("the one that the source names")] = None,
    dtype: Annotated[
        Literal["fp32", "fp16", "bf16", "int8"] | None,
        typer.Option(
            help="How a new bank keeps rows.", show_default="fp32, or as an exported file has them"
        ),
    ] = None,
    replace: Replace = False,
    as_json: Json = False,
) -> None:
    """Import users, into a new bank if there is none.

    ```console
    adapterbot bank import users ann=adapters/ann bob=adapters/bob --base ./base
    ```
    """
    from adapterbot.commands import bank_import as command

    show(command.import_(bank, sources, base=base, dtype=dtype, replace=replace), as_json)


@bank_app.command("export")
def bank_export(
    bank: Bank,
    out: Annotated[Path, typer.Argument(help="A file; for peft and lora a directory.")],
    user: Annotated[
        list[str] | None, typer.Option(help="User to export. Repeatable.", show_default="all")
    ] = None,
    form: Annotated[
        Literal["file", "peft", "lora", "soup"],
        typer.Option("--as", help="One safetensors file, a PEFT or LoRA adapter, Soup's JSON."),
    ] = "file",
    store_shared: Annotated[
        bool, typer.Option("--store-shared", help="file: hold what the seed gives, too.")
    ] = False,
    projection: Annotated[
        bool, typer.Option("--projection/--no-projection", help="peft: save A and B.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Export users as a file or adapter that Git, the gate and other tools can read.

    ```console
    adapterbot bank export users ann --user ann --as peft
    ```
    """
    from adapterbot.commands import bank_export as command

    done = command.export(
        bank, out, user or (), form=form, store_shared=store_shared, projection=projection
    )
    show(done, as_json)
