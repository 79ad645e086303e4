"""A report.json as GitHub would show its comment: HTML, or a PNG taken with headless Chromium.

    python -m scripts.comment_picture report.json -o docs/images/comment.png [--open]

`github_html` is what the tests hold the renderer against: cmark-gfm with GitHub's extensions, then
the sanitiser with GitHub's allow-list. Nothing here goes over the network.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import cmarkgfm
import nh3
from cmarkgfm.cmark import Options
from playwright.sync_api import Browser

from adapterbot import render
from adapterbot.records import Report
from scripts.browser import chromium

# html-pipeline's SanitizationFilter, which is what GitHub published of its own list.
ELEMENTS = set(
    "h1 h2 h3 h4 h5 h6 br b i strong em a pre code img tt div ins del sup sub p picture ol ul "  # noqa: SIM905
    "table thead tbody tfoot blockquote dl dt dd kbd q samp var hr ruby rt rp li tr td th s strike "
    "summary details caption figure figcaption abbr bdo cite dfn mark small source span time "
    "wbr input".split()
)
ATTRIBUTES = {
    "*": {"align", "alt", "dir", "title", "open", "checked", "disabled", "type", "start", "lang"}
    | {"aria-hidden", "aria-label", "role"},
    "a": {"href"},
    "img": {"src"},
}

_PAGE = """<!doctype html><html data-theme="{theme}"><meta charset="utf-8"><style>
:root {{ --bg:#fff; --fg:#1f2328; --soft:#59636e; --line:#d1d9e0; --code:#818b981f; --row:#f6f8fa;
  --link:#0969da; --del:#ffebe9; --add:#dafbe1; --hunk:#ddf4ff; }}
:root[data-theme=dark] {{ --bg:#0d1117; --fg:#f0f6fc; --soft:#9198a1; --line:#3d444d;
  --code:#656c7633; --row:#151b23; --link:#4493f8; --del:#67060c; --add:#033a16; --hunk:#121d2f; }}
body {{ margin:0; padding:16px; background:var(--bg); color:var(--fg); width:{width}px;
  box-sizing:border-box; font:14px/1.5 system-ui,-apple-system,"Segoe UI","Noto Sans",
  Helvetica,Arial,sans-serif,"Noto Color Emoji"; }}
.comment {{ border:1px solid var(--line); border-radius:6px; }}
.head {{ background:var(--row); border-bottom:1px solid var(--line); padding:8px 16px;
  border-radius:6px 6px 0 0; color:var(--soft); }} .head b {{ color:var(--fg); }}
.body {{ padding:16px; overflow-wrap:break-word; }} .body > :first-child {{ margin-top:0; }}
.body > :last-child {{ margin-bottom:0; }}
h1,h2,h3 {{ margin:24px 0 16px; line-height:1.25; }} h3 {{ font-size:1.25em; }}
h2 {{ font-size:1.5em; border-bottom:1px solid var(--line); padding-bottom:.3em; }}
p,ul,ol,table,pre,details {{ margin:0 0 16px; }} ul {{ padding-left:2em; }}
code {{ font:85% ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace;
  background:var(--code); padding:.2em .4em; border-radius:6px; white-space:break-spaces; }}
pre {{ background:var(--row); padding:16px; border-radius:6px; overflow:auto; line-height:1.45; }}
pre code {{ background:none; padding:0; white-space:pre; }}
table {{ border-spacing:0; border-collapse:collapse; display:block; width:max-content;
  max-width:100%; overflow:auto; }}
td,th {{ padding:6px 13px; border:1px solid var(--line); }} th {{ font-weight:600; }}
tr:nth-child(2n) td {{ background:var(--row); }} a {{ color:var(--link); }}
.d {{ background:var(--del); }} .a {{ background:var(--add); }} .h {{ background:var(--hunk); }}
</style><body><div class="comment"><div class="head"><b>github-actions</b> bot commented</div>
<div class="body">{body}</div></div></body></html>"""


def github_html(markdown: str) -> str:
    """What GitHub's parser and sanitiser make of a comment, before mentions are linked."""
    # Raw HTML goes through the parser as on GitHub; the sanitiser is what takes it away.
    parsed = cmarkgfm.github_flavored_markdown_to_html(
        markdown, Options.CMARK_OPT_UNSAFE | Options.CMARK_OPT_FOOTNOTES
    )
    return nh3.clean(
        parsed,
        tags=ELEMENTS,
        clean_content_tags={"script", "style"},
        attributes=ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        link_rel=None,
    )


def _coloured(found: re.Match[str]) -> str:
    """GitHub's colours for the lines of a diff."""
    kinds = {"-": "d", "+": "a", "@": "h"}
    rows = (
        f'<span class="{kinds[line[0]]}">{line}</span>' if line[:1] in kinds else line
        for line in found[2].split("\n")
    )
    return found[1] + "\n".join(rows)


def page(markdown: str, *, width: int, theme: str, unfolded: bool) -> str:
    """A page that looks like the pull request, to be photographed."""
    body = github_html(markdown)
    body = re.sub(r'(<pre lang="diff"><code>)([^<]*)', _coloured, body)
    if unfolded:
        body = body.replace("<details>", "<details open>")
    return _PAGE.format(body=body, width=width, theme=theme)


def photograph(
    browser: Browser, html: str, target: Path, *, width: int, scale: float = 1.0
) -> None:
    """PNG of the whole page, cut to its height."""
    page = browser.new_page(viewport={"width": width, "height": 100}, device_scale_factor=scale)
    page.set_content(html)
    page.screenshot(path=target, full_page=True)


def main() -> None:
    """Read a report (or a Markdown or HTML file as it is), write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("source", type=Path, help="report.json, or a rendered .md or .html")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a .png or .html file")
    parser.add_argument("--adapter", help="key of the adapter; the first one if not given")
    parser.add_argument("--open", action="store_true", help="unfold every <details>")
    parser.add_argument("--theme", choices=("light", "dark"), default="light")
    parser.add_argument("--width", type=int, default=900)
    parser.add_argument("--scale", type=float, default=1.0)
    args = parser.parse_args()

    if args.source.suffix == ".html":
        html = args.source.read_text("utf-8")
    else:
        markdown = args.source.read_text("utf-8")
        if args.source.suffix == ".json":
            report = Report.model_validate_json(markdown)
            adapters = [a for a in report.adapters if args.adapter in (None, a.key)]
            if not adapters:
                sys.exit(f"no adapter {args.adapter!r} in {args.source}")
            markdown = render.comment(report, adapters[0])
        html = page(markdown, width=args.width, theme=args.theme, unfolded=args.open)
    if args.output.suffix == ".html":
        args.output.write_text(html, "utf-8")
    else:
        with chromium() as browser:
            photograph(browser, html, args.output, width=args.width, scale=args.scale)


if __name__ == "__main__":
    main()
