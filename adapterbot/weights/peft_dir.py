"""A PEFT adapter directory: its two files read, checked against each other, and digested.

No torch and no PEFT: what can be known from names, shapes and options is known here, before a
GPU is touched. The tensors themselves are read by `weights.adapter`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from adapterbot.errors import InputError
from adapterbot.files import there
from adapterbot.files.named import read_named
from adapterbot.files.tree import file_sha256, link_refused
from adapterbot.weights.header import Header, read_header
from adapterbot.weights.layout import PREFIX, LowRankEntry, check_kinds, layout
from adapterbot.weights.options import LoraConfig, PeftConfig, parse_config

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
PICKLE_NAME = "adapter_model.bin"
_CONFIG_LIMIT = 4 * 1024 * 1024


@dataclass(frozen=True)
class AdapterFiles:
    """A directory that was found sound.

    Attributes:
        path: the directory.
        shown: how errors name it.
        config: the options; a `LoraConfig` exactly when the kind is LoRA.
        header: the weights' checked header.
        modules: module name in the base model → its low-rank update. Empty for other kinds.
        replaced: parameter name in the base model → tensor name, for what was saved whole
            (biases, modules_to_save, embeddings). Empty for other kinds.
        left_to_peft: options for which PEFT itself must run; empty when the one equation will do.
    """

    path: Path
    shown: str
    config: PeftConfig
    header: Header
    modules: Mapping[str, LowRankEntry]
    replaced: Mapping[str, str]
    left_to_peft: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors' names as the base has them: each begins with a module's or parameter's."""
        return tuple(name.removeprefix(PREFIX) for name in self.header.tensors)

    @property
    def weights_path(self) -> Path:
        """The safetensors file."""
        return self.path / WEIGHTS_NAME

    @property
    def weights_shown(self) -> str:
        """How errors name the safetensors file."""
        return f"{self.shown}/{WEIGHTS_NAME}"

    @property
    def config_shown(self) -> str:
        """How errors name the options file."""
        return f"{self.shown}/{CONFIG_NAME}"


def refuse_no_adapter(path: Path) -> None:
    """Refuses a place that holds nothing to look at, however broken.

    Raises:
        InputError: it is no directory, or has no adapter_config.json.
    """
    if not there.is_dir(path):
        what = "is not a directory" if there.exists(path) else "does not exist"
    elif not there.exists(path / CONFIG_NAME):
        what = f"is no adapter: it holds no {CONFIG_NAME}"
    else:
        return
    raise InputError(what, file=str(path), fix="name an adapter directory")


def read_adapter_dir(path: Path | str, *, shown: str | None = None) -> AdapterFiles:
    """The adapter in directory `path`, checked without loading a tensor.

    Args:
        path: a directory that holds adapter_config.json and adapter_model.safetensors.
        shown: how errors name it (a repository path); `path` itself when not given.

    Raises:
        InputError: a file is missing, a link, a pickle, an LFS pointer or broken; an option is
            unknown or refused; or the tensors are not those that the options announce.
    """
    directory = Path(path)
    name = shown or str(path)
    config_text = _read_config(directory, name)
    config, left_to_peft = parse_config(config_text, shown=f"{name}/{CONFIG_NAME}")
    header = read_header(_weights_file(directory, name), shown=f"{name}/{WEIGHTS_NAME}")
    check_kinds(header, f"{name}/{WEIGHTS_NAME}")
    modules: Mapping[str, LowRankEntry] = {}
    replaced: Mapping[str, str] = {}
    if isinstance(config, LoraConfig) and not left_to_peft:
        modules, replaced = layout(config, header, f"{name}/{WEIGHTS_NAME}")
    return AdapterFiles(
        path=directory,
        shown=name,
        config=config,
        header=header,
        modules=modules,
        replaced=replaced,
        left_to_peft=left_to_peft,
    )


def adapter_digest(path: Path | str) -> str:
    """SHA-256 (64 hex digits) of what decides the adapter's behaviour: its options and weights.

    Names and contents both go in, so that no two different directories share a digest; other files
    of the directory (a README, a trainer's state) do not.

    Raises:
        InputError: a file is missing or is a link.
    """
    directory = Path(path)
    _read_config(directory, str(path))
    return files_digest(directory / CONFIG_NAME, _weights_file(directory, str(path)))


def by_digest(adapters: Iterable[AdapterFiles]) -> dict[str, AdapterFiles]:
    """Adapters by their digests, in order.

    Raises:
        InputError: two of them are copies of one.
    """
    found: dict[str, AdapterFiles] = {}
    for one in adapters:
        other = found.setdefault(adapter_digest(one.path), one)
        if other is not one:
            raise InputError(f"is a copy of {other.shown}", file=one.shown, fix="name it once")
    return found


def files_digest(*files: Path) -> str:
    """SHA-256 (64 hex digits) over names and contents of files."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.name}\0{file_sha256(file)}\n".encode())
    return whole.hexdigest()


def _read_config(directory: Path, shown: str) -> bytes:
    if not there.is_dir(directory):
        raise InputError(
            "is not a directory" if there.exists(directory) else "does not exist",
            file=shown,
            fix="name the adapter's directory",
        )
    file = directory / CONFIG_NAME
    if there.is_symlink(file):
        raise link_refused(f"{shown}/{CONFIG_NAME}")
    if not there.is_file(file):
        raise InputError(
            f"is not a PEFT adapter: it holds no {CONFIG_NAME}",
            file=shown,
            fix="save the adapter there with `save_pretrained`",
        )
    fix = "save the adapter again"
    return read_named(file, limit=_CONFIG_LIMIT, fix=fix, shown=f"{shown}/{CONFIG_NAME}")


def _weights_file(directory: Path, shown: str) -> Path:
    file = directory / WEIGHTS_NAME
    if there.is_symlink(file):
        raise link_refused(f"{shown}/{WEIGHTS_NAME}")
    if there.is_file(file):
        return file
    if there.exists(directory / PICKLE_NAME):
        raise InputError(
            "is a pickle, which can run code when it is loaded; it is never loaded here",
            file=f"{shown}/{PICKLE_NAME}",
            fix="re-save it with `save_pretrained(..., safe_serialization=True)`",
        )
    raise InputError(f"holds no {WEIGHTS_NAME}", file=shown, fix="commit the adapter's weights")
