"""What a merge is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapterbot.merge.names import Search, Strategy
from adapterbot.records import EngineSettings


@dataclass(frozen=True)
class MergeOptions:
    """What every strategy takes.

    Attributes:
        adapters: directories, at least 2.
        output: the directory to write; it must not exist.
        strategy: how; CMAES with `SearchOptions`.
        weights: one per adapter, for the strategies that do not search.
        expression: the same as task arithmetic, `coder + 0.5*math - toxic`.
        rank: the most ranks of the result.
        base: the base model's directory or Hub name; what the adapters say when None.
    """

    adapters: tuple[Path, ...]
    output: Path
    strategy: Strategy
    weights: tuple[float, ...] = ()
    expression: str | None = None
    rank: int | None = None
    density: float = 0.5
    seed: int = 0
    base: str | None = None


@dataclass(frozen=True)
class SearchOptions:
    """What the search takes besides."""

    suite: Path
    budget: int
    search: Search = Search.WEIGHTS
    population: int | None = None
    generations: int = 10_000
    racing: bool = True
    resume: bool = False
    settings: EngineSettings | None = None
    ray: str | None = None

    @property
    def engine(self) -> str:
        """The settings that decide what is answered, as they are typed."""
        settings = self.settings or EngineSettings()
        names = ("dtype", "quantization", "attn_implementation")
        return " ".join(f"{name}={value}" for name in names if (value := getattr(settings, name)))
