"""Continuous relaxations: every candidate runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from msgdas.alphas import Alphas
from msgdas.samplers._relax import gumbel_like
from msgdas.subgraph import Gate, SubGraph

__all__ = ["GumbelSoftmax", "Softmax", "full"]


def full(alphas: Alphas) -> SubGraph:
    """The whole super-net, every candidate weighted by its probability ``softmax(a)``."""
    probabilities = alphas.probabilities()
    return SubGraph({name: Gate(tuple(range(len(p))), p) for name, p in probabilities.items()})


@dataclass(frozen=True)
class Softmax:
    """The whole super-net, gates ``softmax(a / τ)`` (Liu et al. 2019, arXiv:1806.09055, eq. 2). One sub-graph."""

    def __call__(self, alphas: Alphas, *, tau: float = 1.0, generator: torch.Generator | None = None) -> list[SubGraph]:
        weights = {name: (alphas[name] / tau).softmax(-1) for name in alphas.names}
        return [SubGraph({name: Gate(tuple(range(len(w))), w) for name, w in weights.items()})]


@dataclass(frozen=True)
class GumbelSoftmax:
    """The whole super-net, gates ``softmax((log softmax(a) + g) / τ)`` with Gumbel noise (SNAS, Xie et al. 2019,
    arXiv:1812.09926, eq. 4). One sub-graph."""

    def __call__(self, alphas: Alphas, *, tau: float = 1.0, generator: torch.Generator | None = None) -> list[SubGraph]:
        logits_CO = alphas.stack()
        phi_CO = logits_CO.log_softmax(-1) + gumbel_like(logits_CO, generator)
        weights_CO = (phi_CO / tau).softmax(-1)
        whole = zip(alphas.names, weights_CO, alphas.sizes, strict=True)
        return [SubGraph({name: Gate(tuple(range(o)), w[:o]) for name, w, o in whole})]
