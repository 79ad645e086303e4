"""A training run as a search goes through it: its checkpoints, and what names the data of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adapterbot.bisect import Archive, Checkpoint
from adapterbot.config import AdapterConfig, ArchiveData
from adapterbot.errors import InputError
from adapterbot.paths import check_text
from adapterbot.weights.peft_dir import adapter_digest


@dataclass(frozen=True)
class TrainingRun:
    """The checkpoints of one run, oldest first.

    Attributes:
        archive: where they are kept.
        config: the training config, which names the data at each commit of a Git history.
        data: which files hold the rows of a checkpoint elsewhere; None where nobody says.
    """

    archive: Archive
    checkpoints: Sequence[Checkpoint]
    config: str
    data: ArchiveData | None = None

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

    def check_names(self) -> None:
        """Refuses checkpoints that no report could name.

        Raises:
            InputError: a name is no text.
        """
        for checkpoint in self.checkpoints:
            check_text(checkpoint.path)

    def ends_in(self, digest: str | None) -> bool:
        """Whether the newest checkpoint is the adapter with this digest."""
        if digest is None:
            return False
        try:
            with self.archive.opened(self.checkpoints[self.last]) as path:
                return adapter_digest(path) == digest
        except InputError:
            return False  # its probe will say why
