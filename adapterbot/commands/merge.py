"""`adapterbot merge`: several adapters of one base made into one.

Reads the inputs, hands the search a real evaluator, and writes what came of it: a PEFT directory
with merge.json (where it comes from) and, after a search, scores.svg beside the weights. It appears
whole or not at all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterbot import TOOL
from adapterbot.commands.merge_base import base_directory, base_name, check_one_base, with_base
from adapterbot.commands.merge_options import MergeOptions, SearchOptions
from adapterbot.errors import InputError
from adapterbot.files import there
from adapterbot.files.atomic import not_written, try_folder, write_text
from adapterbot.importing import extras
from adapterbot.merge import checkpoint
from adapterbot.merge.names import DRAWING, SPARSE, Search, Strategy
from adapterbot.records.merge import MergeInput, MergeRecord, StopReason
from adapterbot.stages import Listener, Stages
from adapterbot.weights.peft_dir import AdapterFiles, adapter_digest, by_digest, read_adapter_dir

if TYPE_CHECKING:
    from adapterbot.eval.suite import Suite
    from adapterbot.merge.standing import Standing
    from adapterbot.weights.adapter import Adapter

FEWEST, MOST = 2, 16
RECORD_NAME = "merge.json"
PLOT_NAME = "scores.svg"


def run(options: MergeOptions, search: SearchOptions | None, listener: Listener) -> MergeRecord:
    """Merges, and returns what merge.json says.

    Raises:
        InputError: an input cannot be used; nothing is written.
        OurFailure: no candidate could be evaluated, or the disk is full.
    """
    searches = options.strategy is Strategy.CMAES
    if searches and search is None:
        raise InputError(
            "is missing",
            field="--eval",
            fix="name the suite to search with, or say --strategy linear",
        )
    stages = Stages(listener)
    with stages("read"):
        files = _read(options)
        inputs = tuple(
            MergeInput(path=str(one.path), digest=digest)
            for digest, one in by_digest(files).items()
        )
    if searches and search:
        return _searched(options, search, files, inputs, stages)
    return _combined(options, files, inputs, stages)


def checkpoint_path(output: Path) -> Path:
    """Where the search that writes `output` keeps its state while it goes on."""
    return output.parent / f".{output.name}.search.json"


def _read(options: MergeOptions) -> list[AdapterFiles]:
    count = len(options.adapters)
    if not FEWEST <= count <= MOST:
        raise InputError(
            f"names {count} adapter{'s' * (count != 1)}",
            field="--adapter",
            fix=f"name {FEWEST} to {MOST} of them",
        )
    # Each goes by the last part of its path, which `.` and `..` do not have.
    paths = [there.real(path) if path.name in ("", "..") else path for path in options.adapters]
    for path in paths:
        namesakes = [there.real(other) for other in paths if other.name == path.name]
        if len(namesakes) > len(set(namesakes)):
            raise InputError(f"names {path.name!r} twice", field="--adapter", fix="name it once")
        if len(namesakes) > 1:
            raise InputError(
                f"names two adapters {path.name!r}",
                field="--adapter",
                fix="rename one of the directories",
            )
    _check_output(options.output, [there.real(path) for path in paths])
    files = [read_adapter_dir(path) for path in paths]
    check_one_base(options, files)
    return files


def _check_output(output: Path, adapters: Sequence[Path]) -> None:
    """Refuses, before anything is computed, a place that cannot be written in the end."""
    try:
        output.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror}", file=str(output), fix="name another output"
        ) from error
    else:
        fix = "name another output, or remove it"
        if there.exists(checkpoint_path(output)):
            fix = "move it away, and the search goes on with --resume"
        raise InputError("already exists", file=str(output), fix=fix)
    for adapter in adapters:
        if there.real(output).is_relative_to(adapter):
            raise InputError(
                f"lies inside the adapter {adapter.name}",
                file=str(output),
                fix="name an output beside it",
            )
    try_folder(output.parent)


def _combined(
    options: MergeOptions,
    files: Sequence[AdapterFiles],
    inputs: tuple[MergeInput, ...],
    stages: Stages,
) -> MergeRecord:
    with extras("eval", "merging"):
        from adapterbot.merge.expression import parse_expression
        from adapterbot.merge.strategies import Merger, check
        from adapterbot.weights.adapter import open_adapter
        from adapterbot.weights.merging import merge_with

    strategy = options.strategy
    names = [one.path.name for one in files]
    if options.expression is not None:
        weights = parse_expression(options.expression, names)
    elif strategy is Strategy.TASK_ARITHMETIC and not options.weights:
        raise InputError("is missing", field="--expression", fix=f"write {' + '.join(names)}")
    else:
        weights = list(options.weights) or [1 / len(files)] * len(files)
    if len(weights) != len(files):
        raise InputError(
            f"gives {len(weights)} weight{'s' * (len(weights) != 1)} for {len(files)} adapters",
            field="--weight",
            fix="give one for each --adapter, in the same order",
        )
    if not any(weights):
        raise InputError(
            "is 0 for every adapter, so that nothing would be left",
            field="--weight" if options.expression is None else "--expression",
            fix="give one of them a weight",
        )
    check(strategy, weights, options.rank, options.density)
    if strategy is Strategy.SLERP:
        # Only their ratio is a place on the arc; what one adapter has alone is scaled alike.
        weights = [weight / sum(weights) for weight in weights]
    weight = sum(map(abs, weights))
    merger = Merger(strategy, weight, options.rank, options.density, options.seed)
    with stages("merge"):
        adapters = [open_adapter(one) for one in files]
        merged = merge_with(merger, adapters, weights, base=base_directory(options, files))
        record = MergeRecord(
            tool=TOOL,
            strategy=strategy.value,
            inputs=inputs,
            base_model=base_name(options, files),
            weights=(tuple(weights),),
            rank=options.rank,
            density=options.density if strategy in SPARSE else None,
            seed=options.seed if strategy in DRAWING else None,
            expression=options.expression,
            output=str(options.output),
        )
        told = with_base(merged, options, files)
        return _write(told, record, options.output, lambda: merger.truncation)


def _searched(
    options: MergeOptions,
    search: SearchOptions,
    files: Sequence[AdapterFiles],
    inputs: tuple[MergeInput, ...],
    stages: Stages,
) -> MergeRecord:
    from adapterbot.commands.evaluator import import_engine
    from adapterbot.commands.interrupts import interrupts

    place = checkpoint_path(options.output)
    if there.exists(place) and not search.resume:
        raise InputError(
            "is the checkpoint of a search that did not end",
            file=str(place),
            fix="go on with --resume, or remove it",
        )
    if search.resume and not there.exists(place):
        raise InputError(
            "does not exist", file=str(place), fix="name the same --output, or drop --resume"
        )
    with stages("read suite"):
        suite = _suite(search.suite)
    digests = [one.digest for one in inputs]
    saved = checkpoint.load(place) if search.resume else None
    if saved:
        # What is known without a model is held against it before one is loaded.
        known = {"engine": search.engine, "suite": suite.digest, "seed": options.seed}
        saved.check({"adapters": digests, **known})
    with stages("import"):
        import_engine(None if search.ray else search.settings)
    from adapterbot.commands.merge_search import Searching
    from adapterbot.merge.strategies import Merger
    from adapterbot.weights.adapter import load_adapter
    from adapterbot.weights.merging import merge_linear, merge_with

    with stages("load"):
        adapters = [load_adapter(one) for one in files]
        # What no candidate could be made of is refused before one is asked: nothing is computed.
        shares = [1.0 if search.search is Search.SIGNED else 1 / len(files)] * len(files)
        merge_linear(adapters, shares, base=base_directory(options, files))
        base = base_name(options, files)
        searching = Searching(adapters, suite, base, search, options.seed)
    identity = searching.identity(digests)
    if saved:
        saved.check(identity)
    with stages("search") as progress, interrupts():
        outcome = searching.run(
            saved.state if saved else None,
            save=lambda now: checkpoint.save(place, identity, now),
            told=_telling(stages.listener, search, progress),
        )
    with stages("write"):
        merger = Merger(Strategy.LINEAR, 1.0, options.rank)
        merged = merge_with(
            merger, adapters, searching.weigh(outcome), base=base_directory(options, files)
        )
        record = MergeRecord(
            tool=TOOL,
            strategy=Strategy.CMAES,
            inputs=inputs,
            base_model=base,
            weights=outcome.winner.weights,
            rank=options.rank,
            seed=options.seed,
            output=str(options.output),
            search=searching.record(outcome, str(search.suite)),
        )
        told = with_base(merged, options, files)
        written = _write(told, record, options.output, lambda: merger.truncation)
    if outcome.stop is not StopReason.INTERRUPTED:
        place.unlink(missing_ok=True)
    return written


def _telling(
    listener: Listener, search: SearchOptions, progress: Callable[[int, int], None]
) -> Callable[[Standing, float], None]:
    def told(standing: Standing, left: float) -> None:
        now = standing.history[-1]
        best = "–" if now.best_so_far is None else f"{now.best_so_far:.4f}"
        failed = f", {now.failed} failed" if now.failed else ""
        listener.said(
            f"generation {now.generation}: best {best}, σ {now.sigma:.3g}, "
            f"{standing.candidates} candidates, {standing.evaluated:,} answers{failed}, "
            f"{max(0.0, left):.0f} s left"
        )
        progress(round(search.budget - max(0.0, left)), search.budget)

    return told


def _suite(path: Path) -> Suite:
    from adapterbot.commands.place import named_file
    from adapterbot.eval.suite import load_suite

    if not there.is_file(path):
        what = "is not a file" if there.exists(path) else "does not exist"
        raise InputError(what, file=str(path), fix="name an eval suite")
    return load_suite(*named_file(there.real(path), Path.cwd()))


def _write(
    merged: Adapter,
    record: MergeRecord,
    output: Path,
    truncation: Callable[[], float],
) -> MergeRecord:
    """The directory, put together beside its place and moved there when it is whole."""
    from adapterbot.pages.curves import curves
    from adapterbot.pages.templating import drawing
    from adapterbot.weights.saving import save_adapter

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
            building = Path(folder)
            save_adapter(merged, building)
            found: dict[str, Any] = {"output_digest": adapter_digest(building)}
            if record.rank is not None or record.density is not None:
                found["truncation"] = truncation()
            written = record.model_copy(update=found)
            write_text(building / RECORD_NAME, written.model_dump_json(indent=2) + "\n")
            if written.search:
                title = f"Merge of {len(written.inputs)} adapters, selection split"
                chart = curves(written.search.history)
                drawn = drawing("curves.svg.j2", style="curves.css", title=title, curves=chart)
                write_text(building / PLOT_NAME, drawn)
            building.chmod(0o755)
            building.rename(output)
    except OSError as error:
        raise not_written(output, error) from error
    return written
