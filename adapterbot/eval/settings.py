"""Engine settings from the command line, over those of the configuration. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from adapterbot.errors import InputError
from adapterbot.files.validation import first_problem
from adapterbot.records import EngineSettings

__all__ = ["EngineSettings", "engine_settings"]


def engine_settings(
    configured: EngineSettings | None, given: Sequence[str] = (), device: str | None = None
) -> EngineSettings:
    """The settings of a run.

    Args:
        configured: those of adapterbot.yaml.
        given: `name=value`, as on the command line; they win.
        device: wins over both.

    Raises:
        InputError: an unknown name, or a value that it cannot have.
    """
    fields = EngineSettings.model_fields
    chosen = configured.model_dump(exclude_unset=True) if configured else {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or name not in fields:
            raise InputError(
                f"{pair!r} is not a setting of the engine",
                field="--engine",
                fix=f"write name=value with one of {', '.join(fields)}",
            )
        chosen[name] = value
    if device:
        chosen["device"] = device
    try:
        return EngineSettings.model_validate(chosen)
    except ValidationError as error:
        field, message = first_problem(error)
        name = field.partition(".")[0]
        of_device = name == "device"
        raise InputError(
            f"cannot be {chosen.get(name)!r}" if of_device else message,
            field="--device" if device and of_device else f"engine.{name}".rstrip("."),
            fix="write auto, cpu, cuda or cuda:1" if of_device else "correct the value",
        ) from error
