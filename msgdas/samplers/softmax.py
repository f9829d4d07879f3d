"""Continuous relaxations: every candidate runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from msgdas.alphas import Alphas
from msgdas.samplers._relax import all_paths, perturbed
from msgdas.subgraph import SubGraph

__all__ = ["GumbelSoftmax", "Softmax", "full"]


def full(alphas: Alphas) -> SubGraph:
    """The whole super-net, each candidate weighted by its probability ``softmax(a)``."""
    return all_paths(alphas.probabilities())


@dataclass(frozen=True)
class Softmax:
    """One sub-graph: the whole super-net with gates ``softmax(a / τ)`` (Liu et al. 2019, arXiv:1806.09055, eq. 2)."""

    def __call__(self, alphas: Alphas, *, tau: float = 1.0, generator: torch.Generator | None = None) -> list[SubGraph]:
        return [all_paths({name: (alphas[name] / tau).softmax(-1) for name in alphas.names})]


@dataclass(frozen=True)
class GumbelSoftmax:
    """One sub-graph: the whole super-net with gates ``softmax((log softmax(a) + g) / τ)``, g Gumbel noise (SNAS, Xie et
    al. 2019, arXiv:1812.09926, eq. 4)."""

    def __call__(self, alphas: Alphas, *, tau: float = 1.0, generator: torch.Generator | None = None) -> list[SubGraph]:
        weights_CO = (perturbed(alphas.stack(), generator) / tau).softmax(-1)
        drawn = zip(alphas.names, alphas.sizes, weights_CO, strict=True)
        return [all_paths({name: weights[:size] for name, size, weights in drawn})]
