"""What holds for every test."""

from __future__ import annotations

import signal

from hypothesis import settings

# A busy machine is no finding.
settings.register_profile("adapterbot", deadline=None)
settings.load_profile("adapterbot")

# Whoever starts the tests in the background (`nohup make test &`) has them ignore interrupts, and
# with them every command that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
