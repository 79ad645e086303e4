"""The stages of a gate, passed on to the pull request as well as to the log."""

from __future__ import annotations

from dataclasses import dataclass

from adapterbot.commands.herald import Herald
from adapterbot.stages import Listener

# What a reader of the comment cares for; every other stage is over before anyone looks.
_WORDS = {
    "load": "loading the base model",
    "evaluate": "answering the suite with both adapters",
    "bisect": "searching the checkpoints for the one that broke it",
}


@dataclass
class ProgressListener:
    """Tells the log everything, and the herald how far the adapter at work is."""

    log: Listener
    herald: Herald
    key: str = ""

    def judging(self, key: str) -> None:
        """From here on stages are about this adapter."""
        self.key = key
        self.herald.at(key, "checking the lock")

    def opened(self, stage: str) -> None:
        self.log.opened(stage)
        if stage in _WORDS:
            self.herald.at(self.key, _WORDS[stage])
        if stage == "evaluate":
            self.herald.free()

    def closed(self, stage: str, seconds: float) -> None:
        self.log.closed(stage, seconds)

    def advanced(self, stage: str, done: int, total: int) -> None:
        self.log.advanced(stage, done, total)
        if stage in _WORDS and total > 0:
            self.herald.at(self.key, _WORDS[stage], done / total)

    def said(self, message: str) -> None:
        self.log.said(message)
