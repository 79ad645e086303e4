"""`adapterbot finish`: the end of a gate that was killed before it could say one.

The action runs it last, whatever happened. Out of memory, a crash inside a GPU library or a runner
that lost patience end a process without a word, and its comment would say "evaluating" for ever.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from adapterbot.commands import place as places
from adapterbot.commands.audience import audience_for
from adapterbot.commands.folders import out_directory
from adapterbot.commands.herald import Herald
from adapterbot.commands.pledge import PLEDGE, Pledge
from adapterbot.console import listener_for
from adapterbot.errors import OurFailure
from adapterbot.publishing import USUAL, Publishing
from adapterbot.unjudged import stopped


def run(
    out: Path | None,
    publishing: Publishing = USUAL,
    *,
    base: str | None = None,
    head: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> bool:
    """Say that the gate of this job was killed, if it was; False where there is nothing to say.

    Raises:
        AdapterbotError: the event, the token, or GitHub.
    """
    pledge = out_directory(out, environment) / PLEDGE
    if not pledge.is_file():
        return False
    begun = Pledge.read(pledge)
    context = places.read_event(environment)
    if context.asked:
        context = places.bound(context, base, head)
    audience = audience_for(context, publishing, environment, resumed=True)
    herald = Herald(audience, listener_for(environment).said, pledge)
    killed = OurFailure(
        "the gate was killed before it came to an end",
        fix="see the job's log; the machine may have run out of memory",
    )
    herald.ended(stopped(begun.adapters, context.source(), killed, partial=begun.partial))
    return True
