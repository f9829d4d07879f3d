"""Tensor functions shared by the samplers. ``C`` choices, ``O`` candidates (padded with −inf), ``K`` sub-graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from msgdas.alphas import Alphas
from msgdas.subgraph import Gate, SubGraph

__all__ = ["all_paths", "gumbel_like", "hard_paths", "one_path_each", "perturbed", "straight_through"]


def gumbel_like(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """i.i.d. Gumbel(0, 1) noise. Drawn in float32 on the CPU, so that a seed gives the same draw on every device."""
    noise = torch.empty(logits.shape, dtype=torch.float32).exponential_(generator=generator).log_().neg_()
    return noise.to(logits, non_blocking=True)  # the host does not wait for the copy


def perturbed(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """``φ = log softmax(a) + g`` with Gumbel noise g, ``(C, O)``. Its argmax is a draw from ``softmax(a)``."""
    return logits.log_softmax(-1) + gumbel_like(logits, generator)


def straight_through(picks: Tensor, soft: Tensor) -> Tensor:
    """``hard + (soft − soft.detach())``: exactly one-hot in forward, the gradient of ``soft`` in backward.

    Args:
        picks: ``(…, C)`` int64.
        soft: ``(…, C, O)``.
    """
    hard = torch.zeros_like(soft).scatter_(-1, picks[..., None], 1.0)  # one_hot would wait for the device
    return hard + (soft - soft.detach())


def one_path_each(alphas: Alphas, picks: Tensor, weights: Tensor) -> list[SubGraph]:
    """K single-path sub-graphs from ``picks`` ``(K, C)`` and gate weights ``(K, C, O)``."""
    widest = weights.shape[-1]
    return [
        SubGraph(
            {
                n: Gate((i,), w if o == widest else w[:o])  # a needless slice would double the cost of a gate
                for n, i, w, o in zip(alphas.names, row, rows, alphas.sizes, strict=True)
            }
        )
        for row, rows in zip(picks.tolist(), (w.unbind(0) for w in weights.unbind(0)), strict=True)
    ]


def hard_paths(alphas: Alphas, picks: Sequence[Sequence[int]]) -> list[SubGraph]:
    """K single-path sub-graphs from ``picks`` ``(K, C)``. Their gates pass no gradient to the alphas."""
    like = alphas[alphas.names[0]]
    eyes = {o: torch.eye(o, dtype=like.dtype, device=like.device).unbind() for o in set(alphas.sizes)}
    gates = {o: [Gate((i,), one_hot) for i, one_hot in enumerate(eye)] for o, eye in eyes.items()}
    options = [gates[size] for size in alphas.sizes]  # choices share gates
    return [SubGraph({n: o[i] for n, o, i in zip(alphas.names, options, row, strict=True)}) for row in picks]


def all_paths(weights: Mapping[str, Tensor]) -> SubGraph:
    """The whole super-net: every candidate runs, with gate weights ``(O,)`` per choice."""
    return SubGraph({name: Gate(tuple(range(len(w))), w) for name, w in weights.items()})
