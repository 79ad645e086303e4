"""Headless Chromium, as Debian installs it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

EXECUTABLE = shutil.which("chromium") or shutil.which("google-chrome")
MISSING = "no Chromium on this machine (Debian: apt-get install chromium)"


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Root in a container has no sandbox to put it in; nothing but our own files is opened.
        yield playwright.chromium.launch(executable_path=EXECUTABLE, args=["--no-sandbox"])
