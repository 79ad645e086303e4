"""Adapters that the one equation cannot express, put under the base by PEFT itself. (torch, PEFT)

DoRA's norm, IA³'s rescaling, OFT's rotations and the like. Importing PEFT costs seconds, so only
`attached_by_peft` does, and only for the adapters that need it.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from adapterbot.errors import InputError, OurFailure, first_line
from adapterbot.weights.families import as_named
from adapterbot.weights.matching import ALL_LINEAR
from adapterbot.weights.memory import memory_ended
from adapterbot.weights.patterns import match
from adapterbot.weights.peft_dir import CONFIG_NAME, AdapterFiles

_NAME = "adapter"
# Options that PEFT matches with a module's whole name, or with a part of it.
_OF_NAMES = ("target_modules", "exclude_modules", "feedforward_modules")
_OF_PARTS = ("rank_pattern", "alpha_pattern", "layers_pattern", "modules_to_save")
# Names, and what PEFT itself writes for experts that are one tensor, `.*\.gate_up_proj`.
_PLAIN = re.compile(r"\^?(\.\*\\\.)?([\w.-]|\\\.)*\$?")
# What its layers raise on options that they cannot be built from, a rank of 0 among them.
_PEFT_REFUSES = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def renamed(model: nn.Module, modules: Collection[str]) -> bool:
    """Whether an adapter's modules were of this model under an older transformers, which had one
    for each expert: PEFT translates what was trained on them."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    known = {name for name, _ in as_named(model, modules).named_modules()}
    return (
        not known.issuperset(modules)
        and get_checkpoint_conversion_mapping(model.config.model_type) is not None
    )


@contextmanager
def attached_by_peft(model: nn.Module, files: AdapterFiles) -> Iterator[None]:
    """The adapter under `model` inside; after it, the model's own modules and values again.

    Raises:
        InputError: PEFT does not know an option, cannot load the adapter, or finds weights missing.
        OurFailure: PEFT is not installed, or the device's memory ended.
    """
    try:
        import peft
    except ModuleNotFoundError as error:
        raise OurFailure(
            f"{files.config_shown} uses {files.left_to_peft[0]}, for which PEFT is needed",
            fix="pip install 'adapterbot[peft]'",
        ) from error
    named = as_named(model, files.names)
    config = _config(peft, files, [name for name, _ in named.named_modules()])
    before = _Snapshot(named)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if config.peft_type == peft.PeftType.VERA:
                _bring_from_meta(named, next(model.parameters()).device)
            wrapped = _wrapped(peft, named, config, files, before)
        wrapped.eval()
        with _its_head(model, named):
            yield
    finally:
        before.restore()


@contextmanager
def _its_head(model: Any, named: Any) -> Iterator[None]:
    """The head of a twin on the model: PEFT replaces what is the twin's own child there alone."""
    if named is model:
        yield
        return
    head = model.get_output_embeddings()
    model.set_output_embeddings(named.get_output_embeddings())
    try:
        yield
    finally:
        model.set_output_embeddings(head)


def _bring_from_meta(model: nn.Module, device: torch.device) -> None:
    """Parameters of the meta device as zeros that take no room. VeRA moves the matrices that all
    modules share to each module's device, and from the meta device they would not come back."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                zeros = torch.zeros((), dtype=parameter.dtype, device=device)
                shown = nn.Parameter(zeros.expand(parameter.shape), requires_grad=False)
                setattr(module, name, shown)


def _config(peft: Any, files: AdapterFiles, modules: Sequence[str]) -> Any:
    raw = json.loads((files.path / CONFIG_NAME).read_bytes())
    kind = peft.PEFT_TYPE_TO_CONFIG_MAPPING[raw["peft_type"]]
    known = {field.name for field in fields(kind)}
    # PEFT drops an option it does not know; an option that is off may be dropped.
    unknown = sorted(name for name, value in raw.items() if value and name not in known)
    if unknown:
        raise InputError(
            f"is an option that PEFT {peft.__version__} does not know",
            file=files.config_shown,
            field=unknown[0],
            fix="update PEFT on the runner",
        )
    options = {name: value for name, value in raw.items() if name in known}
    options |= dict(_patterns_resolved(options, files, modules))
    try:
        return kind(**{**options, "inference_mode": True})
    except (TypeError, ValueError, ImportError) as error:
        raise _refused(error, files) from error


def _patterns_resolved(
    options: Mapping[str, Any], files: AdapterFiles, modules: Sequence[str]
) -> Iterator[tuple[str, list[str]]]:
    """Options that are a stranger's regular expressions, as the names that these match: PEFT would
    search with `re`, which knows no time limit.
    """
    for option in _OF_NAMES:
        given = options.get(option)
        if isinstance(given, str) and given.lower() != ALL_LINEAR:
            yield option, [name for name in modules if match(given, name, whole=True)]
    for option in _OF_PARTS:
        given = options.get(option) or []
        for pattern in given if isinstance(given, list | dict) else (given,):
            if not _PLAIN.fullmatch(str(pattern)):
                raise InputError(
                    f"holds {str(pattern)[:80]!r}; for PEFT itself we take no regular expression",
                    file=files.config_shown,
                    field=option,
                    fix="write the names out",
                )


def _wrapped(
    peft: Any, model: nn.Module, config: Any, files: AdapterFiles, before: _Snapshot
) -> Any:
    try:
        wrapped = peft.PeftModel(model, config, _NAME)
        before.keep_what_loading_writes_over(wrapped)
        loaded = wrapped.load_adapter(
            # PEFT would read the file onto the first GPU, whichever the model is on.
            str(files.path),
            _NAME,
            is_trainable=False,
            torch_device="cpu",
        )
    except _PEFT_REFUSES as error:
        if memory_ended(error):
            raise OurFailure(
                "does not fit into the device's memory beside the base",
                file=files.shown,
                fix="use a larger device, or engine.quantization",
            ) from error
        raise _refused(error, files) from error
    # VB-LoRA's one bank shows up under every module, and is saved once.
    missing = [key for key in loaded.missing_keys if "vblora_vector_bank" not in key]
    dropped = loaded.unexpected_keys
    if dropped or missing:
        raise InputError(
            f"holds {dropped[0]}, which PEFT would drop"
            if dropped
            else f"holds no weights for {missing[0]}",
            file=files.weights_shown,
            fix="push adapter_config.json and the weights of one training run, on this base",
        )
    return wrapped


def _refused(error: Exception, files: AdapterFiles) -> InputError:
    return InputError(
        f"cannot be loaded by PEFT: {first_line(error)}",
        file=files.shown,
        fix="check the adapter with PEFT on the base model that it was trained on",
    )


class _Snapshot:
    """A model's modules, parameters and flags, and the values that loading would write over."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._children = [
            (m, name, child) for m in model.modules() for name, child in m.named_children()
        ]
        self._parameters = [
            (module, name, parameter, parameter.requires_grad)
            for module in model.modules()
            for name, parameter in module.named_parameters(recurse=False)
        ]
        self._training = [(module, module.training) for module in model.modules()]
        self._own = {tensor.data_ptr() for tensor in model.state_dict().values()}
        self._values: list[tuple[Tensor, Tensor]] = []

    def keep_what_loading_writes_over(self, wrapped: nn.Module) -> None:
        """PEFT loads biases and embeddings into the base's own tensors, and what else a file calls
        by its place under PEFT (`…embed_tokens.token_adapter.base_layer.weight`). It renames, so
        that only right before it loads is known what it will write to."""

        def keep(module: nn.Module, loaded: Mapping[str, Tensor], *_: object) -> None:
            known = module.state_dict()
            self._values += [
                (known[name], known[name].clone())
                for name in loaded
                if name in known and known[name].data_ptr() in self._own
            ]

        wrapped.register_load_state_dict_pre_hook(keep)

    def restore(self) -> None:
        """Everything as it was, down to the objects."""
        for module, name, child in self._children:
            if getattr(module, name) is not child:
                setattr(module, name, child)
        for module, name, parameter, requires_grad in self._parameters:
            if getattr(module, name) is not parameter:
                setattr(module, name, parameter)
            parameter.requires_grad_(requires_grad)
        with torch.no_grad():
            for tensor, value in self._values:
                tensor.copy_(value)
        for module, training in self._training:
            module.training = training
        if hasattr(self._model, "peft_config"):
            del self._model.peft_config
