"""Samplers of one discrete path, without gradient to the alphas."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.nn.utils.rnn import pad_sequence

from msgdas.alphas import Alphas
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.samplers._relax import gumbel_like, hard_path
from msgdas.subgraph import Gate, SubGraph

__all__ = ["Argmax", "Fixed", "SinglePath"]


@dataclass(frozen=True)
class SinglePath:
    """One path, each candidate drawn with its probability ``softmax(a)``.

    Args:
        uniform: draw every candidate of a choice with the same probability instead (random search).
    """

    uniform: bool = False

    def __call__(self, alphas: Alphas, *, tau: float = 1.0, generator: torch.Generator | None = None) -> list[SubGraph]:
        logits_CO = _even(alphas.sizes, alphas[alphas.names[0]].device) if self.uniform else alphas.stack().detach()
        picks_C = (logits_CO + gumbel_like(logits_CO, generator)).argmax(-1)
        return [hard_path(alphas, picks_C.tolist())]


@lru_cache  # not anew in every step: at batch 2 that is 0.02 of one
def _even(sizes: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Logits of 0, ``(C, O)``, padded with −inf."""
    with torch.inference_mode(False):  # for whoever comes later
        zeros = [torch.zeros(size, device=device) for size in sizes]
        return pad_sequence(zeros, batch_first=True, padding_value=-torch.inf)


@dataclass(frozen=True)
class Argmax:
    """The most likely candidate of every choice."""

    def __call__(self, alphas: Alphas, *, tau: float = 1.0, generator: torch.Generator | None = None) -> list[SubGraph]:
        return [hard_path(alphas, alphas.stack().argmax(-1).tolist())]


@dataclass(frozen=True)
class Fixed:
    """Always the sub-graph of a genotype.

    Choices inside edges that the genotype does not keep may stay undecided; they never run.

    Raises:
        InputError: the genotype decides what is no choice of the network, or keeps a candidate that the choice has not.
    """

    genotype: Genotype

    def __call__(self, alphas: Alphas, *, tau: float = 1.0, generator: torch.Generator | None = None) -> list[SubGraph]:
        kept = self.genotype.decisions()
        for name in kept.keys() - alphas.labels.keys():
            raise InputError(f"genotype {self.genotype} decides {name!r}, which is no choice of this network")
        like = alphas[alphas.names[0]].detach()
        gates = {name: _gate(name, labels, kept[name], like) for name, labels in alphas.labels.items() if name in kept}
        return [SubGraph(gates)]


def _gate(name: str, labels: tuple[str, ...], kept: tuple[str, ...], like: torch.Tensor) -> Gate:
    for label in kept:
        if label not in labels:
            raise InputError(f"choice {name!r} has no candidate {label!r}: it has {', '.join(labels)}")
    active = tuple(sorted(labels.index(label) for label in kept))
    weights = like.new_zeros(len(labels))
    weights[list(active)] = 1.0
    return Gate(active, weights)
