"""The real evaluator; torch is imported when the first one is made."""

from __future__ import annotations

import gc
import importlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adapterbot.console import tame_library_logs
from adapterbot.errors import OurFailure
from adapterbot.eval.suite import Selection, Task
from adapterbot.pipeline import EvaluatorFor
from adapterbot.records import EvalStats, TaskResult
from adapterbot.weights.peft_dir import AdapterFiles

if TYPE_CHECKING:
    from adapterbot.eval.engine import Engine


class LocalEvaluator:
    """An engine of this process, and what it has cost so far."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._seconds = 0.0

    def evaluate(
        self,
        tasks: Sequence[Task],
        adapter: AdapterFiles | None,
        *,
        drafts: Sequence[TaskResult] | None = None,
        samples: Selection | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[TaskResult, ...]:
        """As `Engine.evaluate`."""
        started = time.monotonic()
        try:
            return self._engine.evaluate(
                tasks, adapter, drafts=drafts, samples=samples, progress=progress
            )
        finally:
            self._seconds += time.monotonic() - started

    def stats(self) -> EvalStats:
        """Device, precision, samples and seconds."""
        return EvalStats(
            device=self._engine.base.device_name,
            dtype=str(self._engine.base.dtype).removeprefix("torch."),
            samples=self._engine.asked,
            cached=self._engine.cached,
            seconds=round(self._seconds, 3),
        )


def cache_directory(environment: Mapping[str, str]) -> Path:
    """Where scores are kept between runs: on a self-hosted runner, beside its other tools.

    The folder must outlive the job, and must not lie in the workspace that a pull request fills.
    """
    if given := environment.get("ADAPTERBOT_CACHE"):
        return Path(given)
    if tools := environment.get("RUNNER_TOOL_CACHE"):
        return Path(tools) / "adapterbot" / "scores"
    home = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "adapterbot" / "scores"


def engine(
    device: str | None, environment: Mapping[str, str] = os.environ
) -> Callable[[], EvaluatorFor]:
    """What imports the engine and makes evaluators on one device.

    The function that is returned raises OurFailure when the packages it needs are not installed.
    """

    def imported() -> EvaluatorFor:
        try:
            from adapterbot.eval.cache import ScoreCache
            from adapterbot.eval.engine import Engine
            from adapterbot.eval.settings import EngineSettings

            # transformers loads its parts when they are first named; we name them here, so that
            # "load" is the time that the model takes and not the library.
            importlib.import_module("transformers.modeling_utils")
            importlib.import_module("transformers.loss.loss_utils")
            importlib.import_module("transformers.models.auto.modeling_auto")
            importlib.import_module("transformers.models.auto.tokenization_auto")
            library_logs = importlib.import_module("transformers.utils.logging")
            library_logs.disable_default_handler()
            library_logs.enable_propagation()
            # Hundreds of thousands of objects live until the end now. Left to the collector, they
            # are walked again and again, and cost most of a second when the process ends.
            gc.freeze()
        except (ImportError, OSError) as error:
            raise OurFailure(
                f"the packages for evaluating do not load: {error}",
                fix="pip install 'adapterbot[eval]'; `adapterbot doctor` tells more",
            ) from error
        tame_library_logs()
        settings = EngineSettings(device=device or "auto")
        cache = ScoreCache(cache_directory(environment))
        return lambda base: LocalEvaluator(Engine(base, settings, cache=cache))

    return imported
