"""Parameters that an adapter saved whole, put in the base model's place and taken out again.

Biases, modules_to_save and saved embeddings are not low-rank: they take the place of the base's
own. A pointer is exchanged, nothing is copied, so restoring gives back the base's
very objects. (torch)
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from adapterbot.weights.adapter import Adapter
from adapterbot.weights.compatibility import whole_modules

_Place = tuple[nn.Module, str]


class WholeParameters:
    """The parameters of one adapter that take the base's place while it is selected."""

    def __init__(self, model: nn.Module, adapter: Adapter) -> None:
        self._ours: dict[_Place, Tensor] = {}
        self._theirs: dict[_Place, Tensor] = {}
        if not adapter.replaced:
            return
        whole = tuple(f"{name}." for name in whole_modules(model, adapter.config))
        places = _places(model)
        state: Mapping[str, Tensor] = model.state_dict(keep_vars=True)
        for name, tensor in adapter.replaced.items():
            base = state[name]
            ours: Tensor = tensor.to(base.device, base.dtype)
            if isinstance(base, nn.Parameter):
                ours = nn.Parameter(ours, requires_grad=False)
            if name.startswith(whole):
                # modules_to_save trains a copy of its own: a tied twin keeps the base's weight.
                path, _, leaf = name.rpartition(".")
                here = [(model.get_submodule(path), leaf)]
            else:
                # PEFT writes these into the base's own tensor, so a tied twin changes with it.
                here = places[id(base)]
            for place in here:
                self._ours[place] = ours

    def __bool__(self) -> bool:
        return bool(self._ours)

    def put(self) -> None:
        """Exchanges the base's parameters for ours. Twice is once."""
        if self._theirs:
            return
        for (module, leaf), tensor in self._ours.items():
            self._theirs[module, leaf] = _exchange(module, leaf, tensor)

    def restore(self) -> None:
        """Puts the base's own objects back. Twice is once."""
        for (module, leaf), tensor in self._theirs.items():
            _exchange(module, leaf, tensor)
        self._theirs.clear()


def _exchange(module: nn.Module, leaf: str, tensor: Tensor) -> Tensor:
    before: Tensor = getattr(module, leaf)
    setattr(module, leaf, tensor)
    return before


def _places(model: nn.Module) -> dict[int, list[_Place]]:
    """Identity of a parameter or buffer → every module and name that holds it (tied weights)."""
    found: dict[int, list[_Place]] = {}
    for module in model.modules():
        own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        for leaf, tensor in own:
            found.setdefault(id(tensor), []).append((module, leaf))
    return found
