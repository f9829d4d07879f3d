"""ROME's topology sampling: edges are drawn the way operations are."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from msgdas.alphas import Alphas
from msgdas.errors import InputError
from msgdas.samplers._relax import perturbed
from msgdas.subgraph import Gate, SubGraph

__all__ = ["Topology"]


@dataclass(frozen=True)
class Topology:
    """K independent sub-graphs with the topology of the derived network (Wang et al. 2020, arXiv:2011.11233).

    At a searched `MixedInput`, run the ``keep`` incoming edges with the largest ``φ = log softmax(a) + g``
    (Gumbel-Top2); at any other choice, the candidate with the largest φ. The gates are
    ``hard + (soft − soft.detach())`` with ``soft = softmax(φ / τ)`` (eq. 7).

    Args:
        k: number of sub-graphs, drawn independently. Their gradients are averaged.

    Raises:
        InputError: ``k`` below 1.
    """

    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError(f"k={self.k} sub-graphs: use 1 or more")

    def __call__(self, alphas: Alphas, *, tau: float = 1.0, generator: torch.Generator | None = None) -> list[SubGraph]:
        return [self._draw(alphas, tau, generator) for _ in range(self.k)]

    def _draw(self, alphas: Alphas, tau: float, generator: torch.Generator | None) -> SubGraph:
        phi_CO = perturbed(alphas.stack(), generator)
        rank_CO = phi_CO.detach().argsort(-1, descending=True).argsort(-1)
        keep_C1 = torch.tensor([alphas.keep[name] for name in alphas.names])[:, None]
        hard_CO = (rank_CO < keep_C1.to(rank_CO.device, non_blocking=True)).to(phi_CO)
        soft_CO = (phi_CO / tau).softmax(-1)
        weights_CO = hard_CO + (soft_CO - soft_CO.detach())
        gates = {}
        for name, size, kept, weights in zip(alphas.names, alphas.sizes, hard_CO.tolist(), weights_CO, strict=True):
            active = tuple(i for i, runs in enumerate(kept) if runs)
            gates[name] = Gate(active, weights[:size])
        return SubGraph(gates)
