"""DrNAS's Dirichlet-distributed gates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Dirichlet as Distribution
from torch.nn import functional as F

from msgdas.alphas import Alphas
from msgdas.samplers._relax import all_paths
from msgdas.subgraph import SubGraph

__all__ = ["Dirichlet", "concentration"]


def concentration(logits: Tensor) -> Tensor:
    """``β = elu(a) + 1``: positive, the shape of ``a``; β = 1 at ``a = 0`` (uniform on the simplex)."""
    return F.elu(logits) + 1


@dataclass(frozen=True)
class Dirichlet:
    """One sub-graph: the whole super-net with gates drawn from ``Dirichlet(elu(a) + 1)`` (Chen et al. 2021,
    arXiv:2006.10355). The gates carry the pathwise gradient of the draw."""

    def __call__(self, alphas: Alphas, *, tau: float = 1.0, generator: torch.Generator | None = None) -> list[SubGraph]:
        seed = int(torch.randint(2**62, (), generator=generator))
        logits_CO = alphas.stack()
        betas = [
            concentration(logits[:size]).clamp_min(1e-3)
            for size, logits in zip(alphas.sizes, logits_CO.cpu(), strict=True)
        ]
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)  # torch's distributions take no generator, and only CPU draws are reproducible
            draws = [Distribution(beta).rsample() for beta in betas]
        weights = torch.split(torch.cat(draws).to(logits_CO.device, non_blocking=True), [len(draw) for draw in draws])
        return [all_paths(dict(zip(alphas.names, weights, strict=True)))]
