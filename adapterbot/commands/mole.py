"""What `adapterbot mole …` does: rows and models are brought together here, and files written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterbot.atomic import try_folder, write_text
from adapterbot.conventions import ADAPTER_CONFIG
from adapterbot.conversations import messages_of
from adapterbot.errors import InputError
from adapterbot.eval.base_files import base_digest
from adapterbot.lock.hub import copy_of_now
from adapterbot.lock.row_files import Rows, read_rows
from adapterbot.mole.artifact import MixtureFiles, attach_mixture, read_mixture_dir
from adapterbot.mole.config import MixtureConfig, read_config
from adapterbot.mole.ending import STATE_NAME, Ending, ending_in, note_ending
from adapterbot.mole.examples import Example, encode, split
from adapterbot.mole.routes import routes_page
from adapterbot.mole.saving import save_mixture
from adapterbot.records import Record
from adapterbot.records.routes import Routes, TokenRoute
from adapterbot.stages import Listener, Stages
from adapterbot.tree import WorkTree
from adapterbot.weights.peft_dir import adapter_digest, check_base, read_adapter_dir

if TYPE_CHECKING:
    from adapterbot.eval.base_model import BaseModel
    from adapterbot.mole.train import Progress


class Trained(Record):
    """What a training left behind. `loss` is the mean −log p of a held-out answer token."""

    path: str
    experts: tuple[str, ...]
    rows: int
    held_out: int
    loss: float


@dataclass(frozen=True)
class TrainOptions:
    """Overrides of soup.yaml; None leaves its word."""

    config: Path
    output: Path | None = None
    device: str | None = None


def train(options: TrainOptions, tell: Callable[[Progress], None], listener: Listener) -> Trained:
    """Trains the gate that a soup.yaml describes, or goes on with it, and writes the mixture.

    Args:
        tell: told after every step.
        listener: told what comes before the first one.

    Raises:
        InputError: configuration, data or adapters are not what they must be.
        OurFailure: the loss stopped being finite.
    """
    stages = Stages(listener)
    config = _config(options.config)
    folder = options.config.parent
    output = options.output or folder / config.output
    _check_output(output)
    paths = _experts(folder, config)
    found = {name: read_adapter_dir(path) for name, path in paths.items()}
    base_path = _base(folder, config.base)
    for files in found.values():
        check_base(files, base_path)
    tree = WorkTree(folder.resolve())
    files_of = [read_rows(tree, *names) for names in (config.train, config.validation)]
    ending = ending_in(output)
    place = _at_hand(base_path) if ending else None
    if ending and place:
        fingerprint = _fingerprint(config, paths, files_of, base_digest(place))
        if ending.fingerprint == fingerprint:
            return _told(output, paths, ending, listener)
        if place == base_path:  # of the Hub's files a part may be at hand
            from adapterbot.mole.training_state import refuse_other

            refuse_other(output, fingerprint)
    with stages("load"):
        base = load(base_path, options.device)
    fingerprint = _fingerprint(config, paths, files_of, base.digest)
    if ending and ending.fingerprint == fingerprint:
        return _told(output, paths, ending, listener)
    with stages("read"):
        rows, held_out = (_examples(files, config.max_length, base) for files in files_of)
        if not config.validation:
            rows, held_out = split(rows, config.val_split, config.training.seed)

    from adapterbot.mole.mixture import Mixture
    from adapterbot.mole.preparation import prepare
    from adapterbot.mole.train import fit
    from adapterbot.mole.training_state import refuse_other
    from adapterbot.weights.adapter import load_adapter

    refuse_other(output, fingerprint)
    experts = {name: load_adapter(files) for name, files in found.items()}
    plan = config.training
    with Mixture(base.model, experts, config.gate, seed=plan.seed) as mixture:
        with stages("prepare") as progress:
            ready = prepare(base.model, mixture, rows, plan, pad=base.pad, progress=progress)
        loss = fit(
            base.model,
            mixture,
            ready,
            held_out,
            plan,
            pad=base.pad,
            place=output,
            fingerprint=fingerprint,
            progress=tell,
        )
        named = next(iter(found.values())).config.base_model_name_or_path
        save_mixture(output, mixture, paths, base_model=named or config.base)
    ending = note_ending(output, fingerprint, rows=len(rows), held_out=len(held_out), loss=loss)
    return _trained(output, paths, ending)


def _at_hand(base: str | Path) -> Path | None:
    """Where a base lies on this machine, without downloading it."""
    return base if isinstance(base, Path) else copy_of_now(base, field="base")


def _told(output: Path, experts: Iterable[str], ending: Ending, listener: Listener) -> Trained:
    listener.said(f"this training ended before: remove {output / STATE_NAME} to train anew")
    return _trained(output, experts, ending)


def _trained(output: Path, experts: Iterable[str], ending: Ending) -> Trained:
    return Trained(
        path=str(output),
        experts=tuple(experts),
        rows=ending.rows,
        held_out=ending.held_out,
        loss=ending.loss,
    )


def _check_output(output: Path) -> None:
    """Tells before the training what could not be written after it, or not be read again.

    Raises:
        InputError: it holds an adapter, or cannot be written.
    """
    if (output / ADAPTER_CONFIG).exists():
        raise InputError(
            "holds an adapter, and a mixture beside it could not be told from it",
            file=str(output),
            field="output",
            fix="name a folder of its own",
        )
    try_folder(output)


def load(base: str | Path, device: str | None) -> BaseModel:
    """A base model, as the gate loads it."""
    from adapterbot.commands.evaluator import import_engine
    from adapterbot.eval.settings import engine_settings

    settings = engine_settings(None, device=device)
    import_engine(settings)

    from adapterbot.eval.base_model import load_base

    return load_base(base, settings)


def route(
    directory: Path, base: str | None, text: str, *, max_tokens: int, device: str | None
) -> Routes:
    """The experts that each token of `text`, asked as serving asks it, and of the answer used.

    Raises:
        InputError: the directory is no mixture, or does not fit the base.
    """
    files = read_mixture_dir(directory)
    loaded = load(base or _base_of(files), device)

    import torch

    tokenizer = loaded.tokenizer
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    if not ids.numel():
        raise InputError("is no token long", field="text", fix="write something")
    ids = ids.to(loaded.device)
    with attach_mixture(loaded.model, files) as mixture:
        whole = ids
        if max_tokens:
            with torch.inference_mode():
                whole = loaded.model.generate(
                    ids, max_new_tokens=max_tokens, do_sample=False, pad_token_id=loaded.pad
                )
        shares = mixture.route(whole)[:, 0].transpose(0, 1).tolist()
        names = mixture.names
    return Routes(
        experts=names,
        tokens=tuple(
            TokenRoute(
                token=tokenizer.decode([token]),
                written=at >= ids.shape[1],
                weights=tuple(map(tuple, weights)),
            )
            for at, (token, weights) in enumerate(zip(whole[0].tolist(), shares, strict=True))
        ),
    )


def write_heat_map(routes: Routes, path: Path) -> None:
    """The routes as a page of their own."""
    write_text(path, routes_page(routes))


def _config(path: Path) -> MixtureConfig:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror}", file=str(path), fix="name a soup.yaml"
        ) from error
    return read_config(content, str(path))


def _experts(folder: Path, config: MixtureConfig) -> dict[str, Path]:
    """The task adapters by name: the last part of each path, made distinct where they clash."""
    found: dict[str, Path] = {}
    for path in config.experts:
        name = Path(path).name or path
        while name in found:
            name = f"{name}'"
        found[name] = folder / path
    return found


def _base(folder: Path, base: str) -> str | Path:
    """A directory beside the configuration, or a model's id on the Hub."""
    local = folder / base
    return local if local.is_dir() else base


def _base_of(files: MixtureFiles) -> str | Path:
    return _base(files.path, files.manifest.base_model)


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


def _fingerprint(
    config: MixtureConfig,
    experts: dict[str, Path],
    data: Sequence[Rows],
    base: str,
) -> str:
    """Of everything that decides a training: a checkpoint of another one is not gone on from.

    Args:
        data: files of training and held-out rows.
        base: the base's digest; its tokenizer is in it, and so what the rows become.
    """
    decides = {
        "base": base,
        "experts": [adapter_digest(path) for path in experts.values()],
        "gate": config.gate.model_dump(mode="json"),
        "training": config.training.model_dump(mode="json"),
        "data": [[file.digest for file in rows.values()] for rows in data],
        "val_split": config.val_split,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
