"""`adapterbot mole train`: rows, experts and a base brought together, and the mixture written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterbot.commands.mole_base import base_beside, load
from adapterbot.conversations import Example, encode, messages_of
from adapterbot.errors import InputError
from adapterbot.eval.base_files import base_digest
from adapterbot.files.atomic import try_folder
from adapterbot.files.named import read_named
from adapterbot.files.tree import WorkTree
from adapterbot.files.yamlfile import MAX_BYTES
from adapterbot.lock.loaded_base import base_at_hand
from adapterbot.lock.row_files import Rows, read_rows
from adapterbot.mole.config import MixtureConfig, read_config
from adapterbot.mole.ending import STATE_NAME, Ending, ending_in, note_ending
from adapterbot.mole.examples import split
from adapterbot.mole.saving import save_mixture
from adapterbot.records import Record
from adapterbot.stages import Listener, Stages
from adapterbot.weights.peft_dir import CONFIG_NAME, AdapterFiles, by_digest, read_adapter_dir
from adapterbot.weights.trained_on import check_base

if TYPE_CHECKING:
    from adapterbot.eval.base_model import BaseModel
    from adapterbot.mole.train import Progress


class Trained(Record):
    """What a training left behind. `loss` is the mean −log p of a held-out answer token, or of
    those of one training step where no row is held out."""

    path: str
    experts: tuple[str, ...]
    rows: int
    held_out: int
    loss: float


def train(
    config: Path,
    tell: Callable[[Progress], None],
    listener: Listener,
    *,
    output: Path | None = None,
    device: str | None = None,
) -> Trained:
    """Trains the gate that a soup.yaml describes, or goes on with it, and writes the mixture.

    Args:
        tell: told after every step.
        listener: told what comes before the first one.
        output: where to write it; None leaves the soup.yaml's word.

    Raises:
        InputError: configuration, data or adapters are not what they must be.
        OurFailure: the loss stopped being finite, or the device's memory ended.
    """
    stages = Stages(listener)
    job = _job(config, output)
    for doubt in job.config.doubts:
        listener.said(doubt)
    ending = ending_in(job.output)
    if ending and _ended_before(job, ending):
        return _told(job, ending, listener)
    with stages("load"):
        base = load(job.base, device)
    fingerprint = job.fingerprint(base.digest)
    if ending and ending.fingerprint == fingerprint:
        return _told(job, ending, listener)
    with stages("read"):
        rows, held_out = (_examples(files, job.config.max_length, base) for files in job.data)
        if not job.config.validation:
            rows, held_out = split(rows, job.config.val_split, job.config.training.seed)
    asked = {row.prompt for row in rows}
    if known := sum(row.prompt in asked for row in held_out):
        listener.said(
            f"{known} of {len(held_out)} held-out rows ask what a training row asks: the held-out"
            " loss says less of new questions"
        )
    loss = _fitted(job, base, rows, held_out, fingerprint, stages, tell)
    ending = note_ending(job.output, fingerprint, rows=len(rows), held_out=len(held_out), loss=loss)
    return job.trained(ending)


@dataclass(frozen=True)
class _Job:
    """A training as it was asked for, its files read and checked.

    Attributes:
        paths: where each expert lies, by name.
        digests: of the experts, in their order.
        base: the base model's directory, or its id on the Hub.
        data: files of training and of held-out rows.
    """

    config: MixtureConfig
    output: Path
    paths: dict[str, Path]
    experts: dict[str, AdapterFiles]
    digests: tuple[str, ...]
    base: str | Path
    data: tuple[Rows, Rows]

    def fingerprint(self, base: str) -> str:
        """Names all that decides a training, which goes on only from a checkpoint of the same.

        Args:
            base: the base's digest; its tokenizer is in it, and so what the rows become.
        """
        decides = {
            "base": base,
            "experts": self.digests,
            "gate": self.config.gate.model_dump(mode="json"),
            "training": self.config.training.model_dump(mode="json"),
            "data": [[file.digest for file in rows.values()] for rows in self.data],
            "val_split": self.config.val_split,
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def trained(self, ending: Ending) -> Trained:
        """What it left behind."""
        return Trained(
            path=str(self.output),
            experts=tuple(self.paths),
            rows=ending.rows,
            held_out=ending.held_out,
            loss=ending.loss,
        )


def _job(file: Path, output: Path | None) -> _Job:
    content = read_named(file, limit=MAX_BYTES, fix="name a soup.yaml")
    config = read_config(content, str(file))
    folder = file.parent
    output = output or folder / config.output
    _check_output(output)
    paths = _experts(folder, config)
    experts = {name: read_adapter_dir(path) for name, path in paths.items()}
    digests = tuple(by_digest(experts.values()))
    base = base_beside(folder, config.base)
    for files in experts.values():
        check_base(files, base)
    tree = WorkTree(folder.resolve())
    data = read_rows(tree, *config.train), read_rows(tree, *config.validation)
    return _Job(config, output, paths, experts, digests, base, data)


def _ended_before(job: _Job, ending: Ending) -> bool:
    """Whether this very training has ended, as far as the base's files at hand can say."""
    place = base_at_hand(job.base)
    if place is None:
        return False
    try:
        fingerprint = job.fingerprint(base_digest(place))
    except InputError:  # of the Hub's files a part may be at hand
        return False
    if ending.fingerprint == fingerprint:
        return True
    if place == job.base:
        from adapterbot.mole.training_state import refuse_other

        refuse_other(job.output, fingerprint)
    return False


def _fitted(
    job: _Job,
    base: BaseModel,
    rows: Sequence[Example],
    held_out: Sequence[Example],
    fingerprint: str,
    stages: Stages,
    tell: Callable[[Progress], None],
) -> float:
    """The gate trained and the mixture written; the loss on what was held out."""
    from adapterbot.mole.mixture import Mixture
    from adapterbot.mole.preparation import prepare
    from adapterbot.mole.train import fit
    from adapterbot.mole.training_state import refuse_other
    from adapterbot.weights.adapter import load_adapter
    from adapterbot.weights.memory import fitting

    refuse_other(job.output, fingerprint)
    experts = {name: load_adapter(files) for name, files in job.experts.items()}
    plan = job.config.training
    enough = fitting(
        "its rows and experts do not fit into the device's memory",
        field="training.batch_size",
        fix="lower it, and raise gradient_accumulation_steps by as much",
    )
    with enough, Mixture(base.model, experts, job.config.gate, seed=plan.seed) as mixture:
        with stages("prepare") as progress:
            ready = prepare(base.model, mixture, rows, plan, pad=base.pad, progress=progress)
        loss = fit(
            base.model,
            mixture,
            ready,
            held_out,
            plan,
            pad=base.pad,
            place=job.output,
            fingerprint=fingerprint,
            progress=tell,
        )
        named = next(iter(job.experts.values())).config.base_model_name_or_path
        save_mixture(job.output, mixture, job.paths, base_model=named or job.config.base)
    return loss


def _told(job: _Job, ending: Ending, listener: Listener) -> Trained:
    listener.said(f"this training ended before: remove {job.output / STATE_NAME} to train anew")
    return job.trained(ending)


def _check_output(output: Path) -> None:
    """Tells before the training what could not be written after it, or not be read again."""
    if (output / CONFIG_NAME).exists():
        raise InputError(
            "holds an adapter, and a mixture beside it could not be told from it",
            file=str(output),
            field="output",
            fix="name a folder of its own",
        )
    try_folder(output)


def _experts(folder: Path, config: MixtureConfig) -> dict[str, Path]:
    """The task adapters by name: the last part of each path, made distinct where they clash."""
    found: dict[str, Path] = {}
    for path in config.experts:
        name = Path(path).name or path
        while name in found:
            name = f"{name}'"
        found[name] = folder / path
    return found


def _examples(rows: Rows, max_length: int, base: BaseModel) -> list[Example]:
    found = []
    for file in rows.values():
        for row in file:
            try:
                content: Any = json.loads(row.content)
            except (ValueError, RecursionError):
                content = {}
            if not isinstance(content, dict):
                content = {}
            messages = messages_of(content, file=row.file, line=row.line)
            place = f"{row.file}:{row.line}"
            example = encode(base.tokenizer, messages, name=base.name, row=place)
            if example.length > max_length:
                raise InputError(
                    f"is {example.length} tokens long, and data.max_length is {max_length}",
                    file=row.file,
                    field=f"line {row.line}",
                    fix="raise max_length, or shorten the row",
                )
            found.append(example)
    return found
