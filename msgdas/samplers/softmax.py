"""DARTS's continuous relaxation: every candidate runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from msgdas.alphas import Alphas
from msgdas.subgraph import Gate, SubGraph

__all__ = ["Softmax"]


@dataclass(frozen=True)
class Softmax:
    """The whole super-net, gates ``softmax(a / τ)`` (Liu et al. 2019, arXiv:1806.09055, eq. 2). One sub-graph."""

    def __call__(self, alphas: Alphas, *, tau: float = 1.0, generator: torch.Generator | None = None) -> list[SubGraph]:
        weights = {name: (alphas[name] / tau).softmax(-1) for name in alphas.names}
        return [SubGraph({name: Gate(tuple(range(len(w))), w) for name, w in weights.items()})]
