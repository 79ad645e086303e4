"""`python -m adapterbot`."""

from adapterbot.cli import program

program()
