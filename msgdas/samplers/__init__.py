"""Samplers: the heart of a method. ``(alphas, *, tau, generator) -> list[SubGraph]``, pure."""

from __future__ import annotations

from typing import Protocol

import torch

from msgdas.alphas import Alphas
from msgdas.samplers.binary import BinaryGates
from msgdas.samplers.dirichlet import Dirichlet
from msgdas.samplers.gumbel import GumbelTopK
from msgdas.samplers.path import Argmax, Fixed, SinglePath
from msgdas.samplers.softmax import GumbelSoftmax, Softmax
from msgdas.samplers.topology import Topology
from msgdas.subgraph import SubGraph

__all__ = [
    "Argmax",
    "BinaryGates",
    "Dirichlet",
    "Fixed",
    "GumbelSoftmax",
    "GumbelTopK",
    "Sampler",
    "SinglePath",
    "Softmax",
    "Topology",
]


class Sampler(Protocol):
    """Draws the K sub-graphs of one step. Pure: no module, no hidden state, no schedule.

    A sampler may also have ``for_sizes(sizes)`` and ``exclusive`` (see `GumbelTopK`): `Method.for_net` uses them.

    Args:
        alphas: architecture parameters of C choices.
        tau: temperature of the relaxation.
        generator: CPU generator of all its randomness.
    """

    def __call__(
        self, alphas: Alphas, *, tau: float = 1.0, generator: torch.Generator | None = None
    ) -> list[SubGraph]: ...
