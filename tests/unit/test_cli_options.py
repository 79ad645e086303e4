"""Options that Typer has no word for."""

from __future__ import annotations

from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from adapterbot.cli.options import OnCluster, Ray


def echo(
    words: Annotated[list[str], typer.Argument()],
    ray: Ray = None,
    device: Annotated[str | None, typer.Option()] = None,
) -> None:
    typer.echo(f"{words} {ray} {device}")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a"], "['a'] None None"),
        (["a", "--ray"], "['a'] local None"),
        (["--ray", "--device", "cpu", "a"], "['a'] local cpu"),
        (["--ray", "auto", "a"], "['a'] auto None"),
        (["--ray=ray://h:1", "a"], "['a'] ray://h:1 None"),
        (["--ray", "--", "a", "--ray"], "['a', '--ray'] local None"),
    ],
)
def test_ray_without_a_value_is_this_machine(given: list[str], said: str) -> None:
    app = typer.Typer()
    app.command(cls=OnCluster)(echo)
    assert CliRunner().invoke(app, given).output == f"{said}\n"
