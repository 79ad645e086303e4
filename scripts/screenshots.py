"""The pictures in README and docs, made anew from a real run of the demo.

    python -m scripts.screenshots

Runs `adapterbot demo`, takes what it leaves, and photographs the comment as GitHub would show it,
and the report as a reader sees it. Takes Chromium and a font with emoji, and writes docs/images/.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page

from adapterbot import render
from adapterbot.commands.report_files import PAGE, read_report
from scripts import comment_picture
from scripts.browser import chromium

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
WIDTH = 1180
MARKS = ("2705", "274c")  # the check mark and the cross of a verdict


def require_marks() -> None:
    """Without a font that has them, a verdict is photographed as an empty box."""
    for mark in MARKS:
        command = ["fc-list", f":charset={mark}"]
        if not subprocess.run(command, capture_output=True, check=True).stdout:
            raise SystemExit(f"no font here shows U+{mark.upper()}: install fonts-noto-color-emoji")


def run_demo(folder: Path) -> Path:
    """The demo in `folder`; where its results are."""
    command = [sys.executable, "-m", "adapterbot", "demo", str(folder / "demo")]
    # A home without a cache: what the pictures say of the cost is that of a first run.
    environment = {**os.environ, "HOME": str(folder)}
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False, env=environment)
    if done.returncode not in (0, 3):  # 3: the finding that the demo is about
        raise SystemExit(f"the demo ended with exit code {done.returncode}")
    return folder / "demo" / ".adapterbot"


def opened(browser: Browser, path: Path, scheme: Literal["light", "dark"], height: int) -> Page:
    """The report in a window of `height` pixels."""
    page = browser.new_page(viewport={"width": WIDTH, "height": height}, color_scheme=scheme)
    page.goto(path.as_uri())
    return page


def main() -> None:
    """Write every picture."""
    require_marks()
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        results = run_demo(Path(folder))
        report = read_report(results / "report.json")
        comment = render.comment(report, report.adapters[0])
        html = comment_picture.page(comment, width=900, theme="light", unfolded=False)
        comment_picture.photograph(browser, html, IMAGES / "comment.png", width=900)
        opened(browser, results / PAGE, "light", 1120).screenshot(path=IMAGES / "report.png")
        page = opened(browser, results / PAGE, "dark", 860)
        page.get_by_label("Search").fill("invoice")
        page.locator("section[data-samples]").evaluate("section => section.scrollIntoView()")
        page.wait_for_timeout(600)  # the page scrolls smoothly
        page.screenshot(path=IMAGES / "report-samples.png")
    for name in ("comment", "report", "report-samples"):
        path = IMAGES / f"{name}.png"
        sys.stderr.write(f"{path}  {path.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
