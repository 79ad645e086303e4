"""Options that several commands share, so that they are spelt and explained the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Device = Annotated[
    str | None,
    typer.Option(envvar="ADAPTERBOT_DEVICE", help="cpu, cuda, cuda:1 …; the best there is."),
]
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
SoupYaml = Annotated[Path, typer.Option("--config", "-c", help="The training config.")]
