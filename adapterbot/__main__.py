"""`python -m adapterbot`."""

from adapterbot.cli import main

main()
