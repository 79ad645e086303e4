"""A mixture of LoRAs on a loaded model: one pass through the base, the KV cache on. (torch)

Before each decoder layer the gate looks at every token's hidden state; inside the layer each
adapted module adds Σ_{k∈top-K} p_k s_k B_k A_k x to its output. Routing depends on the token alone,
so batches, left padding, prefill, decoding and `generate` need no care.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from adapterbot.errors import InputError, OurFailure
from adapterbot.mole.gate import Gate
from adapterbot.mole.kernels import ExpertStack, Routing, Way, mixed
from adapterbot.mole.layers import check_routable, layers_of, path_and_index
from adapterbot.weights.adapter import Adapter
from adapterbot.weights.attachment import compute_dtype
from adapterbot.weights.compatibility import check_fit
from adapterbot.weights.families import as_named
from adapterbot.weights.mixture_config import GateConfig

# The attribute of a model that says which mixture it was given last.
_LATEST = "_latest_mixture"


@dataclass
class GateRecord:
    """What the gate said during the passes that were recorded.

    `probabilities[layer]` holds a (tokens, N) tensor per pass, before top-K; `routings` beside it,
    and `hidden`, the (tokens, width) states that the gate read. Tokens are those of all rows one
    behind the other, padding included.
    """

    probabilities: dict[int, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    routings: dict[int, list[Routing]] = field(default_factory=lambda: defaultdict(list))
    hidden: dict[int, list[Tensor]] = field(default_factory=lambda: defaultdict(list))

    def add(self, layer: int, hidden: Tensor, probabilities: Tensor, routing: Routing) -> None:
        """One layer's gate in one pass."""
        self.probabilities[layer].append(probabilities)
        self.routings[layer].append(routing)
        self.hidden[layer].append(hidden)


class Mixture:
    """Frozen LoRAs and a gate, attached to a model; a context manager that detaches.

    Live for every row from the start; the mixture that the model was given before is for none then.

    Attributes:
        names: the experts, in the gate's order.
        gate: the only part that can be trained.
        way: overrides how layers are computed; None chooses by shape.
    """

    def __init__(
        self,
        model: nn.Module,
        experts: Mapping[str, Adapter],
        config: GateConfig,
        *,
        seed: int = 0,
    ) -> None:
        """Attaches at once, with a fresh gate.

        Raises:
            InputError: an expert does not fit the model, replaces whole parameters, or reaches
                outside the decoder layers or into two stacks of them; or the gate is made for
                another width or number.
        """
        if len(experts) != config.num_task_adapters:
            raise InputError(
                f"is {config.num_task_adapters}, but there are {len(experts)} experts",
                field="num_task_adapters",
                fix="make the two agree",
            )
        named = as_named(model, [name for one in experts.values() for name in one.updates])
        for adapter in experts.values():
            check_fit(named, adapter)
            check_routable(adapter)
        self.names = tuple(experts)
        self.way: Way | None = None
        self._model = model
        self._named = named
        self._layers = layers_of(named, experts.values())
        width = _width(model, config)
        device = next(model.parameters()).device
        self.gate = Gate(config, len(self._layers), width, seed=seed).to(device)
        self._now: dict[int, Routing] = {}
        self._rows: Tensor | None = None
        self._batch = 0  # how many rows `_rows` are of
        self._alone: int | None = None
        self._record: GateRecord | None = None
        self._handles: list[Any] = []
        # Both updates would add up, as where a cell of a notebook is run twice.
        if (earlier := vars(model).get(_LATEST)) is not None:
            earlier.select(())
        vars(model)[_LATEST] = self
        try:
            self._attach(list(experts.values()))
        except BaseException:  # half of it would be live
            self.detach()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    @property
    def layers(self) -> int:
        """How many decoder layers the experts touch."""
        return len(self._layers)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Which decoder layers those are: the base's first is 0."""
        return tuple(self._layers)

    def detach(self) -> None:
        """Leaves the model as it was found. Twice is once."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if vars(self._model).get(_LATEST) is self:
            del vars(self._model)[_LATEST]

    def select(self, rows: Sequence[bool] | None) -> None:
        """Which rows of the batches that follow the mixture answers; the base answers the others,
        bit for bit as if nothing were attached. None is all of them, () none."""
        if rows is None or (rows and all(rows)):
            self._rows = None
            return
        chosen = [row for row, mine in enumerate(rows) if mine]
        self._batch = len(rows)
        self._rows = torch.tensor(chosen, dtype=torch.long, device=self.gate.weight.device)

    @contextmanager
    def selected(self) -> Iterator[None]:
        """Live for every row inside, for none after."""
        self.select(None)
        try:
            yield
        finally:
            self.select(())

    @contextmanager
    def alone(self, expert: int) -> Iterator[None]:
        """Every token goes to one expert inside, whatever the gate says.

        Raises:
            IndexError: there is no expert of this number.
        """
        if expert not in range(len(self.names)):
            raise IndexError(f"expert {expert!r} of {len(self.names)}: {', '.join(self.names)}")
        self._alone = expert
        try:
            yield
        finally:
            self._alone = None

    @contextmanager
    def recording(self) -> Iterator[GateRecord]:
        """What the gate says in the passes inside."""
        self._record = record = GateRecord()
        try:
            yield record
        finally:
            self._record = None

    @torch.inference_mode()
    def route(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """The weight of every expert for every token, after top-K.

        Args:
            ids: (rows, tokens).
            mask: (rows, tokens), 1 where a token counts; all of them by default.

        Returns: (layers, rows, tokens, N), fp32; rows of padding say nothing.

        Raises:
            InputError: it is live for a part of the rows only, or detached.
        """
        if self._rows is not None or not self._handles:
            raise InputError(
                "is not live for every row", field="mixture", fix="select(None) makes it so"
            )
        with self.recording() as record:
            self._model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids) if mask is None else mask,
                use_cache=False,
            )
        n = len(self.names)
        found = [record.routings[layer][0].dense(n).view(*ids.shape, n) for layer in self._layers]
        return torch.stack([one.to(ids.device) for one in found]).float()

    def shares(self, prompt: Sequence[int], answer: Sequence[int]) -> tuple[float, ...]:
        """How much of an answer each expert wrote.

        A token is written where the one before it is read: by the weights of that position, mean
        over the layers.

        Args:
            prompt, answer: token ids, at least one each.

        Returns: (N,), summing to the answer's tokens.
        """
        ids = torch.tensor([[*prompt, *answer]], device=self.gate.weight.device)
        weights = self.route(ids)[:, 0, len(prompt) - 1 : -1].mean(0)
        return tuple(weights.sum(0).tolist())

    # ------------------------------------------------------------ hooks

    def _attach(self, experts: Sequence[Adapter]) -> None:
        dtype = compute_dtype(self._model)
        by_layer: dict[int, list[str]] = {index: [] for index in self._layers}
        for name in dict.fromkeys(name for adapter in experts for name in adapter.updates):
            by_layer[path_and_index(name)[1]].append(name)
        for place, (index, layer) in enumerate(self._layers.items()):
            self._handles.append(
                layer.register_forward_pre_hook(
                    self._gating(place, index, next(layer.parameters()).device), with_kwargs=True
                )
            )
            for name in by_layer[index]:
                module = self._named.get_submodule(name)
                stack = _stacked(name, experts, module, dtype)
                self._handles.append(module.register_forward_hook(self._adding(name, index, stack)))

    def _gating(self, place: int, index: int, device: torch.device) -> Any:
        def gate(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            if self._rows is not None:
                if not len(self._rows):
                    return
                if len(hidden) != self._batch:
                    raise InputError(
                        f"has {len(hidden)} rows, but {self._batch} were named",
                        field="batch",
                        fix="select or leave each of them, beams and several answers included",
                    )
                hidden = hidden[self._rows]
            # The layer may be the first one on its GPU, and is called with what the last one gave.
            hidden = hidden.reshape(-1, hidden.shape[-1]).to(device)
            probabilities = self.gate.probabilities(place, hidden)
            if self._alone is None:
                self._now[index] = self.gate.routing(probabilities)
            else:
                one = probabilities.new_ones(len(probabilities), 1)
                self._now[index] = Routing(torch.full_like(one, self._alone).long(), one)
            if self._record is not None:
                self._record.add(index, hidden, probabilities, self._now[index])

        return gate

    def _adding(self, name: str, index: int, stack: ExpertStack) -> Any:
        def add(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            seen = args[0]
            if self._rows is not None:
                if not len(self._rows):
                    return output
                seen = seen[self._rows]
            x = seen.reshape(-1, seen.shape[-1]).to(stack.a.dtype)
            routing = self._now[index]
            tokens, expected = x.shape[0], routing.weights.shape[0]
            if tokens != expected:
                raise OurFailure(
                    f"{name} sees {tokens} tokens, its layer {expected}: this model"
                    " sends tokens through its own experts",
                    fix="use experts that adapt the attention only",
                )
            own = output if self._rows is None else output[self._rows]
            added = mixed(own.reshape(-1, own.shape[-1]), x, stack, routing, self.way)
            if self._rows is not None:
                return output.index_copy(0, self._rows, added.view(own.shape))
            return added.view(output.shape)

        return add


def _width(model: Any, config: GateConfig) -> int:
    width = int(model.config.get_text_config().hidden_size)
    if config.hidden_dim not in (None, width):
        raise InputError(
            f"is {config.hidden_dim}, but the base model is {width} wide",
            field="training.mole.hidden_dim",
            fix=f"write {width}, or leave it out",
        )
    return width


def _stacked(
    name: str, experts: Sequence[Adapter], module: nn.Module, dtype: torch.dtype
) -> ExpertStack:
    device = next(module.parameters()).device
    held = [adapter.updates.get(name) for adapter in experts]
    parts = [update for update in held if update is not None]
    ranks = tuple(0 if update is None else update.rank for update in held)
    return ExpertStack(
        a=torch.cat([update.a for update in parts]).to(device, dtype),
        b=torch.cat([update.b for update in parts], dim=1).to(device, dtype),
        ranks=ranks,
        scales=tuple(0.0 if update is None else update.scale for update in held),
        owner=torch.repeat_interleave(torch.arange(len(ranks)), torch.tensor(ranks)).to(device),
    )
