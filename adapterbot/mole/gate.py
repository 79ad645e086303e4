"""The gate: which experts a token goes to, from its own hidden state. (torch)

    p = softmax(G x / τ), the K largest kept and renormalised            (design.md §5)

The only part of a mixture that is trained. Wu, Huang & Wei, "Mixture of LoRA Experts"
(arXiv 2404.13628), with the sparse renormalised top-K of Shazeer et al. (arXiv 1701.06538, §2.1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adapterbot.mole.kernels import Routing
from adapterbot.weights.mixture_config import GateConfig, Router

# Small against the residual stream, so that training starts with nearly equal shares.
_INITIAL_DEVIATION = 0.02


class Gate(nn.Module):
    """G, for every layer or shared by all.

    Attributes:
        weight: (layers, N, width) fp32; (1, N, width) when the router is shared.
    """

    def __init__(self, config: GateConfig, layers: int, width: int, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        own = layers if config.router is Router.PER_LAYER else 1
        made = torch.empty(own, config.num_task_adapters, width, dtype=torch.float32)
        made.normal_(0.0, _INITIAL_DEVIATION, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(made)

    def probabilities(self, layer: int, hidden: Tensor) -> Tensor:
        """softmax(G x / τ) over all experts: (tokens, width) → (tokens, N), fp32."""
        weight = self.weight[layer if len(self.weight) > 1 else 0].to(hidden.device)
        logits = nn.functional.linear(hidden.to(weight.dtype), weight)
        return (logits / self.config.temperature).softmax(dim=-1)

    def routing(self, probabilities: Tensor) -> Routing:
        """The K largest of each row, renormalised. Ties go to the expert that comes first.

        The one of top-1 weighs p / p = 1, which has no slope: no answer would teach the gate
        anything. It is given that of log p, as p itself has it in the Switch Transformer
        (arXiv 2101.03961, §2.1).
        """
        kept, experts = probabilities.sort(dim=-1, descending=True, stable=True)
        kept, experts = kept[:, : self.config.top_k], experts[:, : self.config.top_k]
        total = kept.sum(dim=-1, keepdim=True)
        return Routing(experts, kept / (total.detach() if self.config.top_k == 1 else total))


def balance_loss(probabilities: Tensor, routing: Routing) -> Tensor:
    """N · Σᵢ fᵢ Pᵢ: 1 when all experts get equal shares, up to N when one gets everything.

    fᵢ is the share of (token, choice) pairs that went to expert i, Pᵢ its mean probability; only P
    carries a gradient. Fedus, Zoph & Shazeer (arXiv 2101.03961), eq. 4–6, for top-K.

    Shapes: `probabilities` (tokens, N), at least one token.
    """
    n = probabilities.shape[1]
    share = torch.bincount(routing.experts.reshape(-1), minlength=n) / routing.experts.numel()
    return n * (share.to(probabilities) * probabilities.mean(dim=0)).sum()
