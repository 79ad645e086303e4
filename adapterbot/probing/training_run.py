"""A training run as a search goes through it: its checkpoints, and what names the data of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapterbot.bisect import Archive, Checkpoint
from adapterbot.config import AdapterConfig, ArchiveData
from adapterbot.errors import InputError
from adapterbot.lock.rows import Rows, training_rows
from adapterbot.probing.archive_data import files_between
from adapterbot.weights.peft_dir import AdapterFiles, adapter_digest, read_adapter_dir


@dataclass(frozen=True)
class TrainingRun:
    """The checkpoints of one run, oldest first.

    Attributes:
        archive: where they are kept.
        config: the training config, which names the data at each commit of a Git history.
        data: which files hold the rows of a checkpoint elsewhere; None where nobody says.
        opened: puts a checkpoint on disk, where that is not what the archive does.
    """

    archive: Archive
    checkpoints: Sequence[Checkpoint]
    config: str
    data: ArchiveData | None = None
    opened: Callable[[Checkpoint], AbstractContextManager[Path]] | None = None

    @classmethod
    def of(
        cls, archive: Archive, checkpoints: Sequence[Checkpoint], adapter: AdapterConfig
    ) -> TrainingRun:
        """The run that gave an adapter."""
        return cls(archive, checkpoints, adapter.config, adapter.archive_data)

    @property
    def last(self) -> int:
        """The index of the newest checkpoint."""
        return len(self.checkpoints) - 1

    @contextmanager
    def adapters(self, *checkpoints: Checkpoint) -> Iterator[list[AdapterFiles]]:
        """What lies at some of the checkpoints, on disk inside.

        Raises:
            InputError: one of them is not what an adapter's directory may be.
            OurFailure: a store does not answer.
        """
        opened = self.opened or self.archive.opened
        with ExitStack() as stack:
            yield [
                read_adapter_dir(stack.enter_context(opened(one)), shown=one.path)
                for one in checkpoints
            ]

    def rows_between(self, before: Checkpoint, after: Checkpoint) -> tuple[Rows, Rows] | None:
        """The rows to compare for what came and went, None where nothing says which they are. In a
        Git history they are what the training config names at each commit.

        Raises:
            InputError: a file of rows is missing, or cannot be read.
        """
        trees = self.archive.tree_at(before), self.archive.tree_at(after)
        if trees[0] and trees[1]:
            return training_rows(trees[0], self.config), training_rows(trees[1], self.config)
        return files_between(self.archive.tree, self.data, before, after) if self.data else None

    def ends_in(self, digest: str | None) -> bool:
        """Whether the newest checkpoint is the adapter with this digest."""
        if digest is None:
            return False
        try:
            with self.archive.opened(self.checkpoints[self.last]) as path:
                return adapter_digest(path) == digest
        except InputError:
            return False  # its probe will say why
