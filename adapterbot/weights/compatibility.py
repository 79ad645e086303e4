"""Whether an adapter fits a model: its modules, shapes and whole parameters, or a named reason.

PEFT leaves a targeted module without weights at its initial value and drops weights that no option
names, both in silence. Here either is an error: what is judged must be what was trained. (torch)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adapterbot.errors import InputError
from adapterbot.weights.adapter import Adapter
from adapterbot.weights.matching import ALL_LINEAR, targeted
from adapterbot.weights.options import LoraConfig
from adapterbot.weights.site import features, is_linear, kernel

_OTHER_BASE = "evaluate it on the base model that it was trained on"
_SAME_RUN = "push adapter_config.json and the weights of the same training run"


def check_fit(model: nn.Module, adapter: Adapter) -> None:
    """Refuses an adapter that was not trained on `model` as it is.

    Raises:
        InputError: a module or parameter is unknown to the model, has another shape or kind, is
            named by the options but missing from the weights, or the other way round.
    """
    modules = dict(model.named_modules())
    wanted = targeted_modules(model, adapter.config)
    shown = adapter.files.weights_shown
    for name, update in adapter.updates.items():
        module = modules.get(name)
        if module is None:
            raise _other_base(shown, name, "is not a module of the base model")
        if name not in wanted:
            problem = f"does not name {name}, for which there are weights"
            raise _not_announced(adapter, "target_modules", problem)
        shape = features(module) if update.kernel == kernel(module) else None
        if shape is None or isinstance(module, nn.Embedding) != update.embedding:
            kind = type(module).__name__
            problem = f"is a {kind} in the base model, which these factors do not fit"
            raise _other_base(shown, name, problem)
        if shape != (update.a.shape[1], update.b.shape[0]):
            ours = f"maps {update.a.shape[1]} to {update.b.shape[0]} features"
            raise _other_base(shown, name, f"{ours}, in the base model {shape[0]} to {shape[1]}")
    missing = sorted(wanted - set(adapter.updates))
    if missing:
        problem = f"names {missing[0]}, for which there are no weights"
        raise _not_announced(adapter, "target_modules", f"{problem} ({len(missing)} such modules)")
    _check_replaced(model, adapter)


def rowless_modules(model: nn.Module) -> frozenset[nn.Module]:
    """The modules in which the rows of a batch cannot differ.

    The head and what else is behind the body is asked for chosen positions; shared experts, and the
    feed-forward layers of OPT, see the tokens of all rows in one, as a pass over a few shows.
    """
    ids = torch.tensor([[1, 2, 3], [1, 2, 3]], device=next(model.parameters()).device)
    body = set(getattr(model, "base_model", model).modules()) - {_output_embeddings(model)}
    found = set(model.modules()) - body

    def look(module: nn.Module, args: tuple[object, ...]) -> None:
        entered = args[0] if args else None
        if not isinstance(entered, Tensor) or entered.shape[:2] != ids.shape:
            found.add(module)

    hooks = [
        module.register_forward_pre_hook(look) for module in model.modules() if features(module)
    ]
    try:
        with torch.inference_mode():
            model(input_ids=ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return frozenset(found)


def targeted_modules(model: nn.Module, config: LoraConfig) -> set[str]:
    """The modules of `model` that the options give a low-rank update, by PEFT's rules."""
    targets = config.target_modules
    if isinstance(targets, str) and targets.lower() == ALL_LINEAR:
        head = _output_embeddings(model)
        linear = {
            name
            for name, module in model.named_modules()
            if is_linear(module) and module is not head
        }
        exact = config.model_copy(update={"target_modules": tuple(linear)})
        return {name for name in linear if targeted(exact, name)}
    return {name for name, _ in model.named_modules() if name and targeted(config, name)}


def whole_modules(model: nn.Module, config: LoraConfig) -> set[str]:
    """The modules that `modules_to_save` names; PEFT matches bare endings of the dotted name."""
    endings = config.modules_to_save or ()
    names = (name for name, _ in model.named_modules(remove_duplicate=False))
    return {name for name in names if name and name.endswith(endings)}


def _check_replaced(model: nn.Module, adapter: Adapter) -> None:
    shown, config = adapter.files.weights_shown, adapter.config
    state: dict[str, Tensor] = model.state_dict(keep_vars=True)
    whole = whole_modules(model, config)
    embeddings = _embedding_parameters(model, state)
    for name, tensor in adapter.replaced.items():
        if name not in state:
            raise _other_base(shown, name, "is not a parameter of the base model")
        announced = (
            _inside(name, whole)
            or name in embeddings
            or (config.bias == "all" and name.endswith(".bias"))
            or (config.bias == "lora_only" and name.removesuffix(".bias") in adapter.updates)
        )
        if not announced:
            raise InputError(
                "is saved whole, but neither bias nor modules_to_save names it",
                file=shown,
                field=name,
                fix=_SAME_RUN,
            )
        if tensor.shape != state[name].shape:
            resized = name in embeddings
            raise InputError(
                f"has shape {tuple(tensor.shape)}, in the base model {tuple(state[name].shape)}",
                file=shown,
                field=name,
                fix="use the base model with the resized vocabulary" if resized else _OTHER_BASE,
            )
    absent = sorted(n for n in state if _inside(n, whole) and n not in adapter.replaced)
    if absent:
        problem = f"names a module whose {absent[0]} is not among the weights"
        raise _not_announced(adapter, "modules_to_save", problem)


def _other_base(shown: str, name: str, problem: str) -> InputError:
    return InputError(problem, file=shown, field=name, fix=_OTHER_BASE)


def _not_announced(adapter: Adapter, option: str, problem: str) -> InputError:
    return InputError(problem, file=adapter.files.config_shown, field=option, fix=_SAME_RUN)


def _inside(parameter: str, modules: set[str]) -> bool:
    return any(parameter.startswith(f"{module}.") for module in modules)


def _output_embeddings(model: nn.Module) -> object:
    found = getattr(model, "get_output_embeddings", None)
    return found() if found else None


def _embedding_parameters(model: nn.Module, state: dict[str, Tensor]) -> set[str]:
    """Parameters of the input and output embeddings, which PEFT saves whole on its own accord."""
    getters = [getattr(model, f"get_{side}_embeddings", None) for side in ("input", "output")]
    layers = [layer for getter in getters if getter and (layer := getter()) is not None]
    ours = {id(parameter) for layer in layers for parameter in layer.parameters()}
    return {name for name, parameter in state.items() if id(parameter) in ours}
