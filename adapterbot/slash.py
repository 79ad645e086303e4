"""`/adapterbot …` in a comment: what is asked for. Pure; whether the asker may, GitHub says."""

from __future__ import annotations

import re
from enum import StrEnum

from adapterbot.records import Record

_PREFIX = "/adapterbot"
# What a suite may call a task; nothing else of a stranger's line is passed on.
_METRIC = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,99}")


class Verb(StrEnum):
    """What can be asked for."""

    BISECT = "bisect"
    RERUN = "rerun"
    HELP = "help"
    UNKNOWN = "unknown"


class Command(Record):
    """One slash command. `metric` is for `bisect`; empty takes whatever regressed."""

    verb: Verb
    metric: str = ""


def parse(body: str) -> Command | None:
    """The command on the first line of a comment; None when it is none of ours.

    Only the first line counts: a quoted reply or an example further down asks for nothing.
    """
    words = re.split(r"[\r\n]", body, maxsplit=1)[0].split()
    if not words or words[0] != _PREFIX:
        return None
    match words[1:]:
        case ["help"] | []:
            return Command(verb=Verb.HELP)
        case ["rerun"]:
            return Command(verb=Verb.RERUN)
        case ["bisect"]:
            return Command(verb=Verb.BISECT)
        case ["bisect", metric] if _METRIC.fullmatch(metric):
            return Command(verb=Verb.BISECT, metric=metric)
        case _:
            return Command(verb=Verb.UNKNOWN)
