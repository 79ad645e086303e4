"""The parts of soup.yaml that a lock pins, with the line on which each stands."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from adapterbot.errors import InputError
from adapterbot.tree import Tree
from adapterbot.yamlfile import parse, validate


class _Data(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    train: str | list[str]
    validation: str | list[str] | None = None
    val: str | list[str] | None = None


class _Training(BaseModel):
    # Soup's schema has hundreds of fields and belongs to Soup; these are the ones we pin.
    model_config = ConfigDict(extra="ignore", frozen=True)

    base: Annotated[str, Field(min_length=1, max_length=512)]
    data: _Data


class TrainingConfig(BaseModel):
    """What soup.yaml says of base model and data.

    `data` are paths as written, relative to the file; the lines are 1-based.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    base: str
    base_line: int
    data: tuple[str, ...]
    data_line: int

    @property
    def directory(self) -> str:
        """The folder that paths in the file are relative to; "" is the root."""
        return self.path.rpartition("/")[0]


def load_training(tree: Tree, path: str) -> TrainingConfig:
    """Read soup.yaml.

    Raises:
        InputError: it is missing or unreadable, or lacks `base` or `data.train`.
    """
    file = parse(tree.read(path), path)
    if not isinstance(file.content, dict):
        raise InputError("must be a mapping", file=path, fix="start with `base:` and `data:`")
    found = validate(_Training, file, file.content)
    data: list[str] = []
    for given in (found.data.train, found.data.validation, found.data.val):
        data += [given] if isinstance(given, str) else (given or [])
    return TrainingConfig(
        path=path,
        base=found.base,
        base_line=file.line("base") or 1,
        data=tuple(data),
        data_line=file.line("data", "train") or 1,
    )
