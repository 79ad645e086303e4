"""Results on disk: JSONL, the first line says what was asked, every other is a sample.

Written beside a report and by `adapterbot eval`; read by `adapterbot delta`. A file that is read
may come from anybody, so every line is validated and nothing of it is run. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from adapterbot.errors import InputError
from adapterbot.eval.suite import Task
from adapterbot.files import atomic
from adapterbot.files.validation import first_problem, of_another_version
from adapterbot.records import SampleScore, SavedResults, SavedSample, SavedTask, TaskResult

# A million samples of a kilobyte.
_FILE_LIMIT = 1024 * 1024 * 1024
_FIX = "write it again with `adapterbot eval`"


def saved_task(task: Task) -> SavedTask:
    """A task as it is kept."""
    return SavedTask.model_validate(task.model_dump(include=set(SavedTask.model_fields)))


def save_results(path: Path, head: SavedResults, results: Sequence[TaskResult]) -> None:
    """Writes all of it, or nothing.

    Raises:
        OurFailure: the file cannot be written.
    """
    lines = [head.model_dump_json()]
    lines += [
        SavedSample(task=result.task, sample=sample).model_dump_json(exclude_defaults=True)
        for result in results
        for sample in result.samples
    ]
    atomic.write_text(path, "".join(f"{line}\n" for line in lines))


def load_results(path: Path) -> tuple[SavedResults, tuple[TaskResult, ...]]:
    """What was asked, and every task's samples in the order in which they were kept.

    Raises:
        InputError: naming the file and the line.
    """
    lines = _lines(path)
    number, first = next(lines, (1, ""))
    try:
        head = SavedResults.model_validate_json(first)
        samples: dict[str, list[SampleScore]] = {task.name: [] for task in head.tasks}
        for number, line in lines:
            one = SavedSample.model_validate_json(line)
            if one.task not in samples:
                raise InputError(
                    f"is of the task {one.task!r}, which the first line does not name",
                    file=str(path),
                    field=f"line {number}",
                    fix=_FIX,
                )
            samples[one.task].append(one.sample)
    except ValidationError as error:
        other = of_another_version(
            first.encode(), file=str(path), fix="write it again with this one, or remove it"
        )
        where, message = first_problem(error)
        raise other or InputError(
            f"is not a line of results: {f'{where} {message}'.strip()}",
            file=str(path),
            field=f"line {number}",
            fix=_FIX,
        ) from error
    return head, tuple(task.result(samples[task.name]) for task in head.tasks)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        if path.stat().st_size > _FILE_LIMIT:
            raise InputError(
                f"is larger than {_FILE_LIMIT:,} bytes", file=str(path), fix="split the suite"
            )
        with path.open(encoding="utf-8") as stream:
            yield from ((number, line) for number, line in enumerate(stream, 1) if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise InputError(f"cannot be read: {reason}", file=str(path), fix=_FIX) from error
