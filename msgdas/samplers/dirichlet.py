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
        logits_CO = alphas.stack()
        betas = [
            concentration(logits[:size]).clamp_min(1e-3)
            for size, logits in zip(alphas.sizes, logits_CO.cpu(), strict=True)
        ]
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)  # torch's distributions take no generator, and draw the same on the CPU only
            draws = [Distribution(beta).rsample() for beta in betas]
        weights = torch.split(torch.cat(draws).to(logits_CO.device, non_blocking=True), [len(draw) for draw in draws])
        return [SubGraph({n: Gate(tuple(range(len(w))), w) for n, w in zip(alphas.names, weights, strict=True)})]
