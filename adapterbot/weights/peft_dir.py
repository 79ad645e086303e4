"""A PEFT adapter directory: its two files read, checked against each other, and digested.

No torch and no PEFT: what can be known from names, shapes and options is known here, before a
GPU is touched. The tensors themselves are read by `weights.adapter`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from adapterbot.errors import InputError
from adapterbot.files.named import read_named
from adapterbot.files.tree import file_sha256, link_refused
from adapterbot.weights.header import Header, TensorInfo, read_header
from adapterbot.weights.layout import LowRankEntry, check_kinds, layout
from adapterbot.weights.options import LoraConfig, PeftConfig, parse_config

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
PICKLE_NAME = "adapter_model.bin"
_CONFIG_LIMIT = 4 * 1024 * 1024
# A model of the Hub, with or without its owner and its revision.
_ON_HUB = re.compile(r"(\w[\w.-]*(?:/[\w.-]+)?)(?:@(.+))?")


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
    if not path.is_dir():
        what = "is not a directory" if path.exists() else "does not exist"
    elif not (path / CONFIG_NAME).exists():
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
        modules=MappingProxyType(dict(modules)),
        replaced=MappingProxyType(dict(replaced)),
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


def check_base(files: AdapterFiles, base: Path | str) -> bool:
    """Refuses an adapter that was trained on another base model, as far as files can tell.

    Two Hub names are compared by name. A local base is compared by shape: every low-rank update
    whose weight the base's own safetensors header lists must fit it. What the header names
    differently is left to `weights.attachment`, which sees the real modules.

    Args:
        files: the adapter.
        base: the base model's directory, or its name on the Hub.

    Returns:
        Whether there was anything to compare: two names of the Hub, or a weight of that name.

    Raises:
        InputError: with the first module, or the name, that does not fit.
    """
    directory = Path(base)
    if not directory.is_dir():
        _check_base_name(files, str(base))
        trained_on = files.config.base_model_name_or_path
        return trained_on is not None and _is_hub_name(trained_on) and _is_hub_name(str(base))
    shapes = _base_shapes(directory)
    compared = False
    for module, entry in files.modules.items():
        weight = shapes.get(f"{module}.weight")
        if weight is None or len(weight.shape) != 2:
            continue
        compared = True
        fits = {entry.in_features, entry.out_features} == set(weight.shape)
        if not fits:
            raise InputError(
                f"was trained for a base with {entry.out_features} × {entry.in_features} here; "
                f"{base} has {' × '.join(map(str, weight.shape))}",
                file=files.weights_shown,
                field=module,
                fix="use it with the base model that it was trained on",
            )
    return compared


def check_same_base(one: AdapterFiles, other: AdapterFiles) -> None:
    """Refuses two adapters that say they were trained on different models of the Hub.

    A path on somebody's machine says nothing; two adapters whose shapes disagree are refused by
    whoever puts them together.

    Raises:
        InputError: with both names.
    """
    if one.config.base_model_name_or_path:
        _check_base_name(other, one.config.base_model_name_or_path)


def said_base(configs: Sequence[PeftConfig]) -> tuple[str | None, str | None]:
    """The first name of a base, and the first revision, that adapters' options say."""
    return (
        next((c.base_model_name_or_path for c in configs if c.base_model_name_or_path), None),
        next((c.revision for c in configs if c.revision), None),
    )


def _check_base_name(files: AdapterFiles, base: str) -> None:
    trained_on = files.config.base_model_name_or_path
    if trained_on is not None and names_another(trained_on, base):
        raise InputError(
            f"is {trained_on!r}, but the base model is {base!r}",
            file=files.config_shown,
            field="base_model_name_or_path",
            fix="use it with the base model that it was trained on",
        )


def names_another(one: str, other: str) -> bool:
    """Whether two names are those of different models of the Hub, of whatever revision. A path on
    somebody's machine says nothing about which model it was."""
    ones, others = (name.partition("@")[0].casefold() for name in (one, other))
    return ones != others and _is_hub_name(one) and _is_hub_name(other)


def named_base(base: str) -> tuple[str, str | None]:
    """The name and the revision of a base, apart as in an adapter's options: `org/name@revision` is
    a name to us, and to the Hub's own client it is none."""
    found = _ON_HUB.fullmatch(base)
    return (base, None) if found is None or Path(base).is_dir() else (found[1], found[2])


def base_at(name: str, revision: str | None) -> str:
    """The base that an adapter's options name: `named_base` the other way round."""
    found = _ON_HUB.fullmatch(name)
    alone = found is not None and found[2] is None and not Path(name).is_dir()
    return f"{name}@{revision}" if revision and alone else name


def _is_hub_name(name: str) -> bool:
    return name.partition("@")[0].count("/") == 1 and not name.startswith((".", "/", "~"))


def _base_shapes(directory: Path) -> dict[str, TensorInfo]:
    shapes: dict[str, TensorInfo] = {}
    for shard in sorted(directory.glob("*.safetensors")):
        shapes.update(read_header(shard).tensors)
    return shapes


def _read_config(directory: Path, shown: str) -> bytes:
    if not directory.is_dir():
        raise InputError(
            "is not a directory" if directory.exists() else "does not exist",
            file=shown,
            fix="name the adapter's directory",
        )
    file = directory / CONFIG_NAME
    if file.is_symlink():
        raise link_refused(f"{shown}/{CONFIG_NAME}")
    if not file.is_file():
        raise InputError(
            f"is not a PEFT adapter: it holds no {CONFIG_NAME}",
            file=shown,
            fix="save the adapter there with `save_pretrained`",
        )
    fix = "save the adapter again"
    return read_named(file, limit=_CONFIG_LIMIT, fix=fix, shown=f"{shown}/{CONFIG_NAME}")


def _weights_file(directory: Path, shown: str) -> Path:
    file = directory / WEIGHTS_NAME
    if file.is_symlink():
        raise link_refused(f"{shown}/{WEIGHTS_NAME}")
    if file.is_file():
        return file
    if (directory / PICKLE_NAME).exists():
        raise InputError(
            "is a pickle, which can run code when it is loaded; it is never loaded here",
            file=f"{shown}/{PICKLE_NAME}",
            fix="re-save it with `save_pretrained(..., safe_serialization=True)`",
        )
    raise InputError(f"holds no {WEIGHTS_NAME}", file=shown, fix="commit the adapter's weights")
