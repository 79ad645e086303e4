"""`adapterbot pr`: an adapter pull request as a file, on standard output, or as a comment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adapterbot.commands.spared import spare
from adapterbot.config import key_of
from adapterbot.errors import InputError
from adapterbot.files import atomic
from adapterbot.gh.access import client_for
from adapterbot.marker import document_key
from adapterbot.pr import render as pages
from adapterbot.pr.dataset import read_dataset_diff
from adapterbot.pr.document import Evidence, document
from adapterbot.pr.inputs import read_deltas, read_samples
from adapterbot.records import AdapterPullRequest
from adapterbot.weights.peft_dir import CONFIG_NAME, WEIGHTS_NAME, adapter_digest

# The logins of Enterprise Managed Users end in an underscore and their enterprise's short code.
LOGIN = r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}"
REPOSITORY = rf"{LOGIN}/[A-Za-z0-9._-]{{1,100}}"
_TARGET = re.compile(rf"({REPOSITORY})#([1-9][0-9]{{0,9}})")


@dataclass(frozen=True)
class EvidenceOptions:
    """Where what is known of an adapter can be read; each may be missing.

    Attributes:
        eval: deltas: Soup's JSON, a report.json, or our own PR JSON.
        samples: likewise.
        dataset_diff: see `pr.dataset.read_dataset_diff`.
        config: the training config whose data two refs are compared in.
    """

    eval: Path | None = None
    samples: Path | None = None
    dataset_diff: tuple[str, ...] = ()
    config: str = "soup.yaml"

    def read(self, adapter: str, digest: str) -> Evidence:
        """All of it.

        Args:
            digest: of its weights; a report of others is refused.

        Raises:
            InputError: naming the file and field.
        """
        deltas, notes = read_deltas(self.eval, adapter, digest) if self.eval else ((), ())
        return Evidence(
            deltas=deltas,
            samples=read_samples(self.samples, adapter, digest) if self.samples else (),
            dataset_diff=read_dataset_diff(self.dataset_diff, self.config),
            notes=notes,
        )


@dataclass(frozen=True)
class Rendered:
    """The document, as text in the format that was asked for, and where it went."""

    pull: AdapterPullRequest
    text: str
    comment_url: str | None = None


def run(
    title: str,
    base_sha: str,
    adapter: Path,
    evidence: EvidenceOptions,
    *,
    output: Path | None = None,
    form: Literal["markdown", "json"] = "markdown",
    push: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Rendered:
    """Write the document, and post it when asked; a second post updates the first.

    Everything is read and checked before anything is written.

    Raises:
        AdapterbotError: an input, the token, or GitHub.
    """
    shown = adapter.as_posix()
    if output:
        files = (Path(name) for name in (*evidence.dataset_diff, evidence.config))
        weights = (adapter / name for name in (CONFIG_NAME, WEIGHTS_NAME))
        spare(output, evidence.eval, evidence.samples, *files, *weights, field="--output, -o")
    target = _target(push) if push else None
    client = client_for(target[0], environment) if target else None
    found = evidence.read(shown, adapter_digest(adapter))
    pull = document(title, base_sha, adapter, shown, found)
    text = pages.json_text(pull) if form == "json" else pages.markdown(pull)
    if output:
        atomic.write_text(output, text)
    url = None
    if client and target:
        from adapterbot.gh.comments import Thread

        key = document_key(key_of(shown))
        # A JSON blob is no comment, whatever the format of the file.
        posted = Thread(client, *target).put(key, pages.body(pull, key, titled=True))
        url = posted.url if posted else None
    return Rendered(pull, text, url)


def _target(push: str) -> tuple[str, int]:
    match = _TARGET.fullmatch(push.strip())
    if not match:
        raise InputError(
            f"{push[:120]!r} is not a pull request",
            field="--push",
            fix="write owner/repository#number",
        )
    return match[1], int(match[2])
