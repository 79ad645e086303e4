"""What holds for every test."""

from __future__ import annotations

import signal

# Whoever starts the tests in the background (`nohup make test &`) has them ignore interrupts, and
# with them every command that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
