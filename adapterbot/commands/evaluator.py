"""The real evaluator; torch is imported when the first one is made."""

from __future__ import annotations

from pathlib import Path

from adapterbot.errors import OurFailure
from adapterbot.history import Evaluator
from adapterbot.pipeline import EvaluatorFor


def evaluator_for(device: str | None) -> EvaluatorFor:
    """Makes engines on one device.

    The function that is returned raises OurFailure when the packages it needs are not installed.
    """

    def make(base: str | Path) -> Evaluator:
        try:
            from adapterbot.eval.engine import Engine, EngineSettings
        except ModuleNotFoundError as error:
            raise OurFailure(
                f"{error.name} is not installed",
                fix="pip install 'adapterbot[eval]'",
            ) from error
        return Engine(base, EngineSettings(device=device or "auto"))

    return make
