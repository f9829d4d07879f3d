"""ProxylessNAS's binary gates over two sampled paths."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from msgdas.alphas import Alphas
from msgdas.samplers._relax import perturbed, straight_through
from msgdas.subgraph import Gate, SubGraph

__all__ = ["BinaryGates"]


@dataclass(frozen=True)
class BinaryGates:
    """One sub-graph: two candidates per choice, one of which runs (Cai et al. 2019, arXiv:1812.00332, section 3.2.1).

    Draw the pair without replacement with probabilities ``softmax(a)``, then one of the two with
    ``p = softmax((a_i, a_j))``. The gates are ``hard + (p − p.detach())``. The other of the pair is probed: its
    gradient needs only its output, so it runs in backward, without grad, and only one path stores activations.
    """

    def __call__(self, alphas: Alphas, *, tau: float = 1.0, generator: torch.Generator | None = None) -> list[SubGraph]:
        logits_CO = alphas.stack()
        pair_C2 = perturbed(logits_CO.detach(), generator).topk(2).indices
        outside_CO = torch.ones_like(logits_CO, dtype=torch.bool).scatter(-1, pair_C2, False)
        soft_CO = logits_CO.masked_fill(outside_CO, -torch.inf).softmax(-1)
        first_C = soft_CO.detach().gather(-1, pair_C2)[:, 0]
        swap_C = torch.rand(len(alphas), generator=generator).to(first_C, non_blocking=True) >= first_C
        pair_C2 = torch.where(swap_C[:, None], pair_C2.flip(-1), pair_C2)
        weights_CO = straight_through(pair_C2[:, 0], soft_CO)
        gates = {}
        drawn = zip(alphas.names, alphas.sizes, pair_C2.tolist(), weights_CO, strict=True)
        for name, size, (runs, probed), weights in drawn:
            gates[name] = Gate((runs,), weights[:size], probe=(probed,))
        return [SubGraph(gates)]
