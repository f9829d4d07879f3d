"""ROME's topology sampling: edges are drawn as operations are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from msgdas.alphas import Alphas
from msgdas.errors import InputError
from msgdas.samplers._relax import gumbel_like
from msgdas.subgraph import Gate, SubGraph

__all__ = ["Topology"]


@dataclass(frozen=True)
class Topology:
    """K independent sub-graphs with the topology of the derived network (Wang et al. 2020, arXiv:2011.11233).

    Of a searched `MixedInput` the ``keep`` incoming edges with the largest ``φ = log softmax(a) + g`` run
    (Gumbel-Top2), of any other choice the largest one. The gates are ``hard + (soft − soft.detach())``, with ``soft``
    the softmax of ``φ / τ`` (eq. 7).

    Args:
        k: number of sub-graphs, drawn independently of each other; their gradients are averaged.

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
        logits_CO = alphas.stack()
        phi_CO = logits_CO.log_softmax(-1) + gumbel_like(logits_CO, generator)
        most = max(alphas.keep.values())
        picks_CM = phi_CO.detach().topk(most).indices
        gates = {}
        for name, row, phi_O in zip(alphas.names, picks_CM.tolist(), phi_CO, strict=True):
            picks = row[: alphas.keep[name]]
            gates[name] = Gate(tuple(sorted(picks)), _top(phi_O[: len(alphas.labels[name])], picks, tau))
        return SubGraph(gates)


def _top(phi_O: Tensor, picks: list[int], tau: float) -> Tensor:
    """Straight-through weights of several picks: ``(O,)``, exactly one at each of them."""
    hard = F.one_hot(torch.tensor(picks, device=phi_O.device), len(phi_O)).sum(0).to(phi_O)
    soft = (phi_O / tau).softmax(-1)
    return hard + (soft - soft.detach())
