"""Samplers of one discrete path, without gradient to the alphas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from msgdas.alphas import Alphas
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.samplers._relax import gumbel_like, hard_paths
from msgdas.subgraph import Gate, SubGraph

__all__ = ["Argmax", "Fixed", "SinglePath"]


@dataclass(frozen=True)
class SinglePath:
    """One path: draw a candidate of each choice with probability ``softmax(a)``.

    Args:
        uniform: draw all candidates of a choice with equal probability instead (random search).
    """

    uniform: bool = False

    def __call__(self, alphas: Alphas, *, tau: float = 1.0, generator: torch.Generator | None = None) -> list[SubGraph]:
        logits_CO = _uniform(alphas.sizes) if self.uniform else alphas.stack().detach()
        picks_C = (logits_CO + gumbel_like(logits_CO, generator)).argmax(-1)
        return hard_paths(alphas, [picks_C.tolist()])


def _uniform(sizes: Sequence[int]) -> Tensor:
    """Zero logits ``(C, O)``, padded with −inf."""
    padding_CO = torch.arange(max(sizes)) >= torch.tensor(sizes)[:, None]
    return torch.zeros(padding_CO.shape).masked_fill_(padding_CO, -torch.inf)


@dataclass(frozen=True)
class Argmax:
    """One path: the most probable candidate of each choice."""

    def __call__(self, alphas: Alphas, *, tau: float = 1.0, generator: torch.Generator | None = None) -> list[SubGraph]:
        return hard_paths(alphas, [alphas.stack().argmax(-1).tolist()])


@dataclass(frozen=True)
class Fixed:
    """Always the sub-graph of a genotype.

    The genotype may leave choices undecided inside edges that it drops; they never run.

    Raises:
        InputError: the network lacks a choice, or a candidate, that the genotype names.
    """

    genotype: Genotype

    def __call__(self, alphas: Alphas, *, tau: float = 1.0, generator: torch.Generator | None = None) -> list[SubGraph]:
        kept = self.genotype.decisions()
        for name in kept.keys() - alphas.labels.keys():
            raise InputError(f"genotype {self.genotype} decides {name!r}, which is not a choice of this network")
        like = alphas[alphas.names[0]].detach()
        gates = {name: _gate(name, labels, kept[name], like) for name, labels in alphas.labels.items() if name in kept}
        return [SubGraph(gates)]


def _gate(name: str, labels: tuple[str, ...], kept: tuple[str, ...], like: Tensor) -> Gate:
    for label in kept:
        if label not in labels:
            raise InputError(f"choice {name!r} has no candidate {label!r}: use {', '.join(labels)}")
    active = tuple(sorted(labels.index(label) for label in kept))
    weights = like.new_zeros(len(labels))
    weights[list(active)] = 1.0
    return Gate(active, weights)
