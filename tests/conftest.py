"""What holds for every test."""

from __future__ import annotations

import atexit
import gc
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no finding.
settings.register_profile("adapterbot", deadline=None)
settings.load_profile("adapterbot")

# Whoever starts the tests in the background (`nohup make test &`) has them ignore interrupts, and
# with them every command that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What is imported lives until the end: walking those 800,000 objects again and again takes a fifth
# of collecting the tests, and a tenth of running them.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


atexit.register(gc.unfreeze)  # libraries complain at the end of what is left then


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny Llama."""
    from tests.tiny_models import save_base  # torch, which most tests do without

    return save_base("llama", tmp_path_factory.mktemp("base"))
