"""DrNAS's Dirichlet-distributed gates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Dirichlet as Distribution
from torch.nn import functional as F

from msgdas.alphas import Alphas
from msgdas.subgraph import Gate, SubGraph

__all__ = ["Dirichlet", "concentration"]


def concentration(logits: Tensor) -> Tensor:
    """``β = elu(a) + 1``, positive, of the same shape; 1 (uniform on the simplex) at ``a = 0``."""
    return F.elu(logits) + 1


@dataclass(frozen=True)
class Dirichlet:
    """The whole super-net, gates drawn from ``Dirichlet(elu(a) + 1)`` (Chen et al. 2021, arXiv:2006.10355).

    The gradient is the pathwise one of the draw. One sub-graph.
    """

    def __call__(self, alphas: Alphas, *, tau: float = 1.0, generator: torch.Generator | None = None) -> list[SubGraph]:
        seed = int(torch.randint(2**62, (), generator=generator))
        gates = {}
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)  # torch's distributions take no generator
            for name in alphas.names:
                beta = concentration(alphas[name]).clamp_min(1e-3).cpu()
                gates[name] = Gate(tuple(range(len(beta))), Distribution(beta).rsample().to(alphas[name].device))
        return [SubGraph(gates)]
