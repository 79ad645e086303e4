"""The base model that an adapter was trained on, by what its files say of it. No torch."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from adapterbot.errors import InputError
from adapterbot.weights.header import TensorInfo, read_header
from adapterbot.weights.matching import targeted
from adapterbot.weights.options import LoraConfig, PeftConfig
from adapterbot.weights.peft_dir import AdapterFiles

# A model of the Hub, with or without its owner and its revision.
_ON_HUB = re.compile(r"(\w[\w.-]*(?:/[\w.-]+)?)(?:@(.+))?")


def check_base(files: AdapterFiles, base: Path | str) -> bool:
    """Refuses an adapter that was trained on another base model, as far as files can tell.

    Two Hub names are compared by name. A local base is compared by shape: every low-rank update
    whose weight the base's own safetensors header lists must fit it. What the header names
    differently is left to `weights.attachment`, which sees the real modules; it counts as compared
    where the same place of a layer fits (`model.layers`, `model.language_model.layers`).

    Args:
        base: the base model's directory, or its name on the Hub.

    Returns:
        Whether there was anything to compare: two names of the Hub, or a weight of that name.

    Raises:
        InputError: with the first module, or the name, that does not fit; or with a revision of the
            base that is nobody's word.
    """
    revision = files.config.revision
    if revision is not None and revision.startswith("refs/"):
        raise InputError(
            f"{revision[:100]!r} is no branch, tag or commit of the model, but what anybody may "
            "have proposed on the Hub; PEFT would load its weights",
            file=files.config_shown,
            field="revision",
            fix="name the commit that it was trained on, or none",
        )
    directory = Path(base)
    if not directory.is_dir():
        _check_base_name(files, str(base))
        trained_on = files.config.base_model_name_or_path
        return trained_on is not None and _is_hub_name(trained_on) and _is_hub_name(str(base))
    shapes = base_shapes(directory)
    # Under another class's names it may be of another stack that it does not fit.
    places = {(".".join(_in_layer(name)), frozenset(of.shape)) for name, of in shapes.items()}
    compared = False
    for module, entry in files.modules.items():
        sizes = frozenset((entry.in_features, entry.out_features))
        weight = shapes.get(f"{module}.weight")
        if weight is None or len(weight.shape) != 2:
            place = ".".join(_in_layer(f"{module}.weight"))
            compared = compared or (place != "" and (place, sizes) in places)
            continue
        compared = True
        if sizes != set(weight.shape):
            raise InputError(
                f"was trained for a base with {entry.out_features} × {entry.in_features} here; "
                f"{base} has {' × '.join(map(str, weight.shape))}",
                file=files.weights_shown,
                field=module,
                fix="use it with the base model that it was trained on",
            )
    return compared


def strangers(files: AdapterFiles, shapes: Mapping[str, TensorInfo]) -> tuple[str, ...]:
    """The adapter's modules in layers (`layers.99.mlp`) of which a base has nothing, by its
    `base_shapes`. What stands before a layer differs between the classes that load one model
    (`model.layers`, `model.language_model.layers`), and a module that is fused there is in a part
    that they know."""
    known = {""}
    for name in shapes:
        steps = _in_layer(name)
        known.update(".".join(steps[:end]) for end in range(1, len(steps)))
    parts = {module: ".".join(_in_layer(module)[:-1]) for module in files.modules}
    return tuple(module for module, part in parts.items() if part not in known)


def _in_layer(name: str) -> list[str]:
    """The steps of a name from the stack of its layer on; none of what lies in no layer."""
    steps = name.split(".")
    number = next((at for at, step in enumerate(steps) if step.isdecimal()), len(steps))
    return steps[max(0, number - 1) :] if number < len(steps) else []


def unsaved(files: AdapterFiles, shapes: Mapping[str, TensorInfo]) -> tuple[str, ...]:
    """The modules of a base, by its `base_shapes`, that a LoRA's options name and of which it has
    no weights. PEFT leaves them as the base has them, in silence. Only layers of a stack that it
    has weights of are looked at: an encoder of images beside it may be none of what it was trained
    under. Nor are experts (`layers.0.mlp.experts.3.up_proj`), which a model may hold as one tensor.
    """
    config = files.config
    if not isinstance(config, LoraConfig):
        return ()
    stacks = {_stack(module) for module in files.modules} - {None}
    linear = (
        name.removesuffix(".weight")
        for name, tensor in shapes.items()
        if name.endswith(".weight") and len(tensor.shape) == 2 and _stack(name) in stacks
        if sum(step.isdecimal() for step in name.split(".")) == 1
    )
    return tuple(one for one in linear if one not in files.modules and targeted(config, one))


def _stack(name: str) -> str | None:
    """Where the layers lie that a name is in one of (`model.layers`); None for one in none."""
    inside = ".".join(_in_layer(name))
    stack = inside.partition(".")[0]
    return name.removesuffix(inside) + stack if inside else None


def check_same_base(one: AdapterFiles, other: AdapterFiles) -> None:
    """Refuses two adapters that say they were trained on different models of the Hub.

    A path on somebody's machine says nothing; two adapters whose shapes disagree are refused by
    whoever puts them together.

    Raises:
        InputError: with both names.
    """
    if one.config.base_model_name_or_path:
        _check_base_name(other, one.config.base_model_name_or_path)


def check_together(adapters: Sequence[AdapterFiles]) -> None:
    """Refuses adapters that cannot be added up: as `check_same_base`; or they call the same layers
    by different names (`model.layers`, `model.language_model.layers`), as the classes that load one
    model do. Their sum would name modules of both, and no class has them all.

    Raises:
        InputError: with the names of two.
    """
    for other in adapters[1:]:
        check_same_base(adapters[0], other)
    stacks = [_stacks(files) for files in adapters]
    for (one, ones), (other, others) in itertools.combinations(
        zip(adapters, stacks, strict=True), 2
    ):
        for a, b in itertools.product(ones.keys() - others, others.keys() - ones):
            short, long = sorted((a.split("."), b.split(".")), key=len)
            steps = iter(long)
            if all(step in steps for step in short) and not ones[a].isdisjoint(others[b]):
                raise InputError(
                    f"holds modules of {b}, where {one.shown} holds those of {a}: they were trained"
                    " under two classes of one model",
                    file=other.weights_shown,
                    fix="train both under one class",
                )


def _stacks(files: AdapterFiles) -> dict[str, set[str]]:
    """The stacks of layers that an adapter changes, and its modules' places in each."""
    found: dict[str, set[str]] = {}
    for module in files.modules:
        if stack := _stack(module):
            found.setdefault(stack, set()).add(module.removeprefix(stack))
    return found


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


def base_shapes(directory: Path) -> Mapping[str, TensorInfo]:
    """The tensors of a local base by name, of the headers of all its files.

    Raises:
        InputError: one of them is broken.
    """
    shapes: dict[str, TensorInfo] = {}
    for shard in sorted(directory.glob("*.safetensors")):
        shapes.update(read_header(shard).tensors)
    return shapes
