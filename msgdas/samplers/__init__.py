"""Samplers, the heart of a method: pure functions ``(alphas, *, tau, generator) -> list[SubGraph]``."""

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
    """Draw the K sub-graphs of one step. A sampler is pure: no module, no hidden state, no schedule.

    It may also have ``for_sizes(sizes)`` and ``exclusive`` (see `GumbelTopK`), which `Method.for_net` uses.

    Args:
        alphas: architecture parameters of C choices.
        tau: temperature of the relaxation.
        generator: CPU generator, the only source of randomness.
    """

    def __call__(
        self, alphas: Alphas, *, tau: float = 1.0, generator: torch.Generator | None = None
    ) -> list[SubGraph]: ...
