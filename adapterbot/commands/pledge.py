"""A note on disk that a gate is at work: a process that is killed cannot say how it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError

from adapterbot.errors import InputError
from adapterbot.files import atomic
from adapterbot.records import Record
from adapterbot.records.base import Key, Line

PLEDGE = "running.json"


class Pledge(Record):
    """The (key, path) of every adapter whose comment or check says that a gate is at work."""

    adapters: Annotated[tuple[tuple[Key, Line], ...], Field(max_length=64)]
    partial: bool

    def write(self, path: Path) -> None:
        """Leave it for whoever comes after.

        Raises:
            OurFailure: the file cannot be written.
        """
        atomic.write_text(path, self.model_dump_json())

    @classmethod
    def read(cls, path: Path) -> Self:
        """What was left.

        Raises:
            InputError: something else was.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise InputError("is not what a gate left", file=str(path), fix="remove it") from error
