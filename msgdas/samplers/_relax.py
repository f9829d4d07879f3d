"""Pure tensor functions behind the samplers. ``C`` choices, ``O`` candidates (padded with −inf), ``K`` sub-graphs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from msgdas.alphas import Alphas
from msgdas.subgraph import Gate, SubGraph

__all__ = ["gumbel_like", "hard_path", "one_path_each", "straight_through"]


def gumbel_like(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """i.i.d. Gumbel(0, 1) noise, drawn in float32 on the CPU so that a seed gives the same draw on every device."""
    noise = torch.empty(logits.shape, dtype=torch.float32).exponential_(generator=generator).log_().neg_()
    return noise.to(logits, non_blocking=True)  # the host need not wait for the device to have it


def straight_through(picks: Tensor, soft: Tensor) -> Tensor:
    """``hard + (soft − soft.detach())``: forward exactly one-hot, gradient that of ``soft``.

    Args:
        picks: ``(…, C)`` int64.
        soft: ``(…, C, O)``.
    """
    hard = torch.zeros_like(soft).scatter_(-1, picks[..., None], 1.0)  # one_hot would look at the numbers
    return hard + (soft - soft.detach())


def one_path_each(alphas: Alphas, picks: Tensor, weights: Tensor) -> list[SubGraph]:
    """``picks`` ``(K, C)`` and gate weights ``(K, C, O)`` as K single-path sub-graphs."""
    widest = weights.shape[-1]
    return [
        SubGraph(
            {
                n: Gate((i,), w if o == widest else w[:o])  # a slice costs more than the rest of a gate
                for n, i, w, o in zip(alphas.names, row, rows, alphas.sizes, strict=True)
            }
        )
        for row, rows in zip(picks.tolist(), (w.unbind(0) for w in weights.unbind(0)), strict=True)
    ]


def hard_path(alphas: Alphas, picks: Sequence[int]) -> SubGraph:
    """The single-path sub-graph of one pick for each choice, with gates that no gradient reaches."""
    like = alphas[alphas.names[0]]
    chosen = zip(alphas.names, alphas.sizes, picks, strict=True)
    return SubGraph({name: _certain(i, size, like.dtype, like.device) for name, size, i in chosen})


@lru_cache
def _certain(i: int, size: int, dtype: torch.dtype, device: torch.device) -> Gate:
    with torch.inference_mode(False):  # for whoever comes later
        return Gate((i,), torch.eye(size, dtype=dtype, device=device)[i])
