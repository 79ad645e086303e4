"""Two GPUs where there is none: tensors compute on the CPU, but say that they lie on a GPU, and are
not to be mixed with those of another place.

What torch itself would refuse is refused here: operands on different devices, a GPU's numbers in
NumPy. Gradients lose their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

CPU = "cpu"


def place_of(tensor: Tensor) -> str:
    """Where it says that it lies."""
    return str(getattr(tensor, "place", CPU))


def _placed(tensor: Tensor, place: str) -> Tensor:
    if place != CPU:
        tensor.place = place  # type: ignore[attr-defined]
    return tensor


def _tensors(among: Any) -> Iterator[Tensor]:
    """What torch's functions take and give; a tenth of the time of torch's own trees."""
    if isinstance(among, Tensor):
        yield among
    elif isinstance(among, tuple | list):
        for one in among:
            yield from _tensors(one)
    elif isinstance(among, dict):
        yield from _tensors(list(among.values()))


class TwoGpus(TorchFunctionMode):
    """Inside, `device=` and `.to` decide where a tensor says that it lies, and nothing else."""

    def __enter__(self) -> Any:
        self._parameter = nn.Parameter.__new__

        def parameter(cls: type, data: Any = None, requires_grad: bool = True) -> Any:  # noqa: FBT
            made = self._parameter(cls, data, requires_grad)
            return made if data is None else _placed(made, place_of(data))

        nn.Parameter.__new__ = parameter  # type: ignore[method-assign, assignment]
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        nn.Parameter.__new__ = self._parameter  # type: ignore[method-assign]
        super().__exit__(*error)

    def __torch_function__(
        self,
        function: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name, options = getattr(function, "__name__", ""), dict(kwargs or {})
        if function == Tensor.device.__get__:
            return torch.device(place_of(args[0]))
        if name == "_has_compatible_shallow_copy_type":
            return False  # `Module.to` then makes a parameter anew, which keeps its place
        device = options.pop("device", None)
        if name == "to":
            return self._moved(function, device, *args, **options)
        if name == "pin_memory":
            return args[0]
        if name == "cpu":
            return args[0].detach().view_as(args[0])
        tensors = list(_tensors((args, options)))
        places = {place_of(one) for one in tensors if one.dim() or place_of(one) != CPU}
        if name in ("__getitem__", "__setitem__", "copy_"):
            places = {place_of(tensors[0])} | places - {CPU}  # an index may lie on the CPU
        if name == "copy_":
            places = {place_of(tensors[0])}
        if len(places) > 1 or (name == "numpy" and places != {CPU}):
            raise RuntimeError(
                f"{name}: all tensors on the same device, but found {sorted(places)}"
            )
        place = str(torch.device(device)) if device else next(iter(places), CPU)
        made = function(*args, **options)
        for one in _tensors(made):
            if not any(one is other for other in tensors):
                _placed(one, place)
        return made

    @staticmethod
    def _moved(function: Any, device: Any, tensor: Tensor, *given: Any, **options: Any) -> Tensor:
        for one in given:
            if isinstance(one, torch.device | str):
                device = one
            elif isinstance(one, Tensor):
                device, options["dtype"] = place_of(one), one.dtype
            elif isinstance(one, torch.dtype):
                options["dtype"] = one
        options.pop("non_blocking", None)
        place = str(torch.device(device)) if device else place_of(tensor)
        moved = function(tensor, **options) if options else tensor
        if moved is tensor and place != place_of(tensor):
            moved = tensor.detach().view_as(tensor)
        return moved if moved is tensor else _placed(moved, place)


def spread(model: Any, places: Mapping[str, str]) -> None:
    """Puts modules where `places` says, as accelerate dispatches a model: each moves what it is
    given to where it lies, behind its hooks, and the whole gives its logits back where its ids
    were. Inside `TwoGpus`."""
    for name, place in places.items():
        for module in model.get_submodule(name).modules():
            own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
            for tensor in own:
                _placed(tensor, place)
            module.forward = _moving(module.forward, place)
    forward = model.forward

    def whole(*args: Any, **options: Any) -> Any:
        made = forward(*args, **options)
        made.logits = made.logits.to(options["input_ids"].device)
        return made

    model.forward = whole


def _moving(forward: Callable[..., Any], place: str) -> Callable[..., Any]:
    def moved(*args: Any, **options: Any) -> Any:
        # The cache is left where it is, as a model asks for (`_skip_keys_device_placement`).
        names = {"cache", "cache_params", "past_key_values"}.intersection(options)
        kept = {name: options.pop(name) for name in names}
        args, options = tree_map_only(Tensor, lambda one: one.to(place), (args, options))
        return forward(*args, **options, **kept)

    return moved
