"""`adapterbot bisect --eval-command`, and what a journal of any bisect says afterwards."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from adapterbot import bisect
from adapterbot.bisect import Checkpoint, Kind, Limits, Model, SavedBisect, Setting
from adapterbot.changes.selection import named_adapter
from adapterbot.changes.sides import sides
from adapterbot.commands.evaluator import checkpoints_directory
from adapterbot.commands.folders import out_directory
from adapterbot.commands.interrupts import interrupts
from adapterbot.commands.spared import spare
from adapterbot.config import TRAINING_CONFIG, AdapterConfig
from adapterbot.console import listener_for
from adapterbot.errors import ExitCode, InputError
from adapterbot.files import atomic
from adapterbot.files.tree import Tree, WorkTree
from adapterbot.probing.between import what_changed_in_the_data
from adapterbot.probing.by_command import RETRIES, TIMEOUT, Command, Reading
from adapterbot.probing.names import Prior
from adapterbot.probing.prior import prior
from adapterbot.probing.training_run import TrainingRun
from adapterbot.records import BisectVerdict
from adapterbot.stages import Stages

JOURNAL = "bisect.journal"
OUTPUT = "--output, -o"


@dataclass(frozen=True)
class CommandOptions:
    """What was asked on the command line."""

    checkpoints: tuple[str, ...]
    command: str
    outcomes: str = "noisy"
    score_regex: str | None = None
    score_json: str | None = None
    lower_is_better: bool = False
    assume_endpoints: bool = False
    confidence: float = 0.95
    limits: Limits = field(default_factory=Limits)
    timeout: float = TIMEOUT
    retries: int = RETRIES
    pass_env: tuple[str, ...] = ()
    prior: Prior = Prior.UNIFORM
    resume: bool = False
    output: Path | None = None
    out: Path | None = None
    config: str | None = None
    adapter: str | None = None


def run(options: CommandOptions, environment: Mapping[str, str] = os.environ) -> SavedBisect:
    """Search checkpoints with a command, and write bisect.json.

    Raises:
        InputError: a checkpoint, the command or a path cannot be used; nothing was probed then.
        OurFailure: the command failed for reasons of its own on a checkpoint, again and again.
    """
    directory = Path.cwd()
    if not options.checkpoints:
        raise InputError(
            "names no checkpoints",
            field="checkpoints",
            fix="name them oldest first, or by a pattern such as 'checkpoints/*'",
        )
    elsewhere = any(map(bisect.is_elsewhere, options.checkpoints))
    # Who searches what is here needs no home folder to keep anything in.
    cache = checkpoints_directory(environment) if elsewhere else None
    archive = bisect.Archive(WorkTree(directory), cache)
    checkpoints = (
        archive.find(options.checkpoints)
        if elsewhere
        else bisect.named_checkpoints(options.checkpoints, directory)
    )
    adapter = _adapter(archive.tree, options)
    reading = Reading.of(options.score_regex, options.score_json)
    kind = _kind(options, reading)
    folder = out_directory(options.out, {})  # in the checkout on a runner, too
    output = options.output or folder / "bisect.json"
    option = OUTPUT if options.output else "--out"
    atomic.try_file(output, field=option)
    probe = Command(
        options.command,
        checkpoints,
        directory=directory,
        logs=folder / "bisect-logs",
        reading=reading,
        timeout=options.timeout,
        retries=options.retries,
        pass_on=options.pass_env,
        place=archive.opened if elsewhere else None,
    )
    here = _here(checkpoints, directory)
    spare(output, folder / JOURNAL, *here, *probe.files(), field=option)
    # Last of what may be refused: it may read all checkpoints, or all of their data.
    setting = Setting(
        by=_by(options),
        kinds=(kind,),
        # A score tells only a change: were all of them bad, it would look as if all were good.
        first_good=options.assume_endpoints or reading is not None,
        last_bad=options.assume_endpoints,
        confidence=options.confidence,
        prior=_prior(options, archive, checkpoints, adapter),
    )
    journal = bisect.Journal(
        folder / JOURNAL, bisect.heading(checkpoints, setting), resume=options.resume
    )
    if not journal.entries:
        probe.forget_logs()
    stages = Stages(listener_for(environment))
    for name in options.pass_env:
        if name not in environment:
            stages.listener.said(f"--pass-env: {name} is not set, and the command will not have it")
    # A command has a session of its own: whatever ends us has to end it first.
    try:
        with stages("bisect"), interrupts():
            result = bisect.run(
                bisect.Search(checkpoints, setting),
                probe,
                limits=options.limits,
                journal=journal,
                stop=probe.stop,
                progress=stages.listener.said,
            )
    except KeyboardInterrupt:
        stages.listener.said("what was probed is kept: go on with --resume")
        raise
    if adapter:
        between = what_changed_in_the_data(TrainingRun.of(archive, checkpoints, adapter), result)
        result = result.model_copy(update={"between": between})
    found = bisect.saved(result, checkpoints, confidence=options.confidence)
    atomic.write_text(output, found.model_dump_json(indent=2) + "\n")
    return found


def _here(checkpoints: Sequence[Checkpoint], directory: Path) -> list[Path]:
    """Where those checkpoints lie that are on this machine."""
    return [directory / one.path for one in checkpoints if not bisect.is_elsewhere(one.path)]


def _adapter(tree: Tree, options: CommandOptions) -> AdapterConfig | None:
    """The adapter whose checkpoints these are, which names their data; None where nobody says."""
    where = sides(tree, tree, options.config)
    if options.adapter:
        return named_adapter(where, options.adapter)
    config = where.config
    return config.adapters[0] if config and len(config.adapters) == 1 else None


def _prior(
    options: CommandOptions,
    archive: bisect.Archive,
    checkpoints: Sequence[Checkpoint],
    adapter: AdapterConfig | None,
) -> tuple[float, ...] | None:
    """The prior that was asked for. A command's checkpoints may lie anywhere on this machine."""

    def opened(checkpoint: Checkpoint) -> AbstractContextManager[Path]:
        if bisect.is_elsewhere(checkpoint.path):
            return archive.opened(checkpoint)
        return nullcontext(Path.cwd() / checkpoint.path)

    if adapter:
        run = TrainingRun.of(archive, checkpoints, adapter)
    else:
        run = TrainingRun(archive, checkpoints, TRAINING_CONFIG)
    return prior(options.prior, replace(run, opened=opened))


def _by(options: CommandOptions) -> str:
    """The command, and how its score is read: read otherwise it is another score."""
    read = {"--score-regex": options.score_regex, "--score-json": options.score_json}
    return " ".join([options.command, *(f"{name} {how}" for name, how in read.items() if how)])


def _kind(options: CommandOptions, reading: Reading | None) -> Kind:
    """What the command's outcomes are, in the words of `--outcomes`."""
    outcomes = options.outcomes
    rooms = {"noisy": None, "repeat": 1, "exact": 1}
    if outcomes not in rooms:
        raise InputError(
            f"{outcomes!r} is not one of {', '.join(rooms)}",
            field="--outcomes",
            fix="noisy: a run may err anew; repeat: it errs the same each time; exact: never",
        )
    if reading:
        if outcomes == "exact":
            raise InputError(
                "a score is not exact", field="--outcomes", fix="use noisy or repeat with scores"
            )
        scores = Model.HIGHER_IS_BAD if options.lower_is_better else Model.LOWER_IS_BAD
        return Kind(model=scores, room=rooms[outcomes])
    if options.lower_is_better:
        raise InputError(
            "applies to scores only, and no score is read",
            field="--lower-is-better",
            fix="add --score-regex or --score-json",
        )
    model = Model.EXACT if outcomes == "exact" else Model.PASS_FAIL
    return Kind(model=model, room=rooms[outcomes])


def replay(path: Path) -> SavedBisect:
    """What the probes of a journal say, weighed anew.

    Raises:
        InputError: it is no journal, or contradicts itself.
    """
    about, entries = bisect.read(path)
    try:
        search = bisect.Search(about.checkpoints, about.setting)
        for entry in entries:
            search.take(entry)
        result = bisect.conclude(search)
    except bisect.Contradiction:
        search.contradicted = True
        result = bisect.conclude(search)
    except (ValueError, IndexError) as error:
        raise InputError(
            f"was not written by a search: {error}", file=str(path), fix="start a new search"
        ) from error
    return bisect.saved(result, about.checkpoints, confidence=about.setting.confidence)


def exit_code(verdict: BisectVerdict) -> ExitCode:
    """3 for a broken checkpoint or a range, 0 when all are good, 2 where nobody can tell."""
    if verdict is BisectVerdict.NOT_RUN:
        return ExitCode.BAD_INPUT
    return ExitCode.CLEAN if verdict is BisectVerdict.ALL_OK else ExitCode.FINDING
