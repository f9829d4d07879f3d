"""The Gumbel-TopK sampler of MSG-DAS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from msgdas.alphas import Alphas
from msgdas.errors import InputError
from msgdas.samplers._relax import hard_paths, one_path_each, perturbed, straight_through
from msgdas.subgraph import SubGraph

__all__ = ["GumbelTopK"]


@dataclass(frozen=True)
class GumbelTopK:
    """K mutually exclusive single-path sub-graphs (Tan et al. 2021, arXiv:2107.04324).

    At each choice, the K largest entries of ``φ = log softmax(a) + g`` with ``g ~ Gumbel(0, 1)`` are K candidates drawn
    without replacement. They follow the Plackett–Luce law ``P(i_1 … i_K) = Π_k p_{i_k} / (1 − Σ_{m<k} p_{i_m})`` (Kool
    et al. 2019, arXiv:1903.06059). Each sub-graph gets one of them, so no two sub-graphs share a candidate. The gates
    are ``hard + (soft − soft.detach())``, where ``soft`` is a softmax over ``φ / τ``.

    Args:
        k: number of sub-graphs K. K = 1 is the sampler of GDAS (Dong & Yang 2019, arXiv:1910.04465). Default for None:
            3, or fewer if some choice has fewer candidates; with ``"shuffle"`` 2 if no choice has more than 3, because
            K = O shuffled sub-graphs are uniform, whatever the alphas are.
        assignment: ``"rank"``: sub-graph k takes the k-th pick of every choice. ``"shuffle"``: deal the picks of each
            choice to the sub-graphs at random, which makes the sub-graphs exchangeable.
        normalise: what ``soft`` is normalised over: ``"remaining"``, the candidates not taken by earlier picks;
            ``"picks"``, the K picks only (the sub-graphs compete; K ≥ 2); or ``"all"`` candidates.
        reuse: let a choice with fewer than K candidates use some of them twice instead of raising.

    Raises:
        InputError: an argument is out of range, or a choice has fewer than K candidates.

    Examples:
        >>> alphas = Alphas({"first": ["skip", "conv"], "second": ["skip", "conv", "pool"]}, init=0.0)
        >>> GumbelTopK(k=2)(alphas, generator=torch.Generator().manual_seed(0))
        [SubGraph(first: (1,), second: (1,)), SubGraph(first: (0,), second: (2,))]
    """

    k: int | None = 1
    assignment: Literal["rank", "shuffle"] = "rank"
    normalise: Literal["remaining", "picks", "all"] = "remaining"
    reuse: bool = False

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 1:
            raise InputError(f"k={self.k} sub-graphs: use 1 or more")
        if self.assignment not in ("rank", "shuffle"):
            raise InputError(f"assignment {self.assignment!r}: use 'rank' or 'shuffle'")
        if self.normalise not in ("remaining", "picks", "all"):
            raise InputError(f"normalise {self.normalise!r}: use 'remaining', 'picks' or 'all'")
        if self.normalise == "picks" and self.k == 1:
            raise InputError("normalise 'picks' with k=1 has no gradient: use k=2 or more, or 'remaining' or 'all'")

    @property
    def exclusive(self) -> int | None:
        """Number of mutually exclusive sub-graphs in a draw."""
        return self.k

    @property
    def exchangeable(self) -> bool:
        """Whether the sub-graphs of a draw follow the same law."""
        return self.assignment == "shuffle"

    def for_sizes(self, sizes: Sequence[int]) -> GumbelTopK:
        """This sampler with ``k`` set, given the number of candidates of each choice."""
        if self.k is not None:
            return self
        most = 2 if self.exchangeable and max(sizes, default=0) <= 3 else 3
        return replace(self, k=min([most, *sizes]))

    def __call__(self, alphas: Alphas, *, tau: float = 1.0, generator: torch.Generator | None = None) -> list[SubGraph]:
        if self.k is None:
            return self.for_sizes(alphas.sizes)(alphas, tau=tau, generator=generator)
        self._check(alphas, self.k)
        phi_CO = perturbed(alphas.stack(), generator)
        order_CO = phi_CO.detach().argsort(-1, descending=True)
        turn_CK = self._turns(alphas.sizes, self.k, generator).to(phi_CO.device, non_blocking=True)
        picks_KC = order_CO.gather(1, turn_CK).T
        if not phi_CO.requires_grad:
            return hard_paths(alphas, picks_KC.tolist())  # the same gates in half the time
        soft_KCO = (self._scope(phi_CO, order_CO, turn_CK) / tau).softmax(-1)
        return one_path_each(alphas, picks_KC, straight_through(picks_KC, soft_KCO))

    def _turns(self, sizes: tuple[int, ...], k: int, generator: torch.Generator | None) -> Tensor:
        """``(C, K)``: the rank of the pick that each sub-graph takes at each choice."""
        turn_CK = torch.arange(k) % torch.tensor(sizes)[:, None]
        if self.assignment == "rank":
            return turn_CK
        return turn_CK.gather(1, torch.rand(turn_CK.shape, generator=generator).argsort(-1))

    def _scope(self, phi_CO: Tensor, order_CO: Tensor, turn_CK: Tensor) -> Tensor:
        """φ per sub-graph, ``(K, C, O)``, with −inf for candidates that its gate is not normalised over."""
        k = turn_CK.shape[1]
        phi_KCO = phi_CO.expand(k, -1, -1)
        if k == 1 or self.normalise == "all":
            return phi_KCO
        rank_CO = order_CO.argsort(-1)
        outside = rank_CO < turn_CK.T[..., None] if self.normalise == "remaining" else rank_CO >= k
        return phi_KCO.masked_fill(outside, -torch.inf)

    def _check(self, alphas: Alphas, k: int) -> None:
        for name, size in zip(alphas.names, alphas.sizes, strict=True):
            if size < k and not self.reuse:
                raise InputError(
                    f"choice {name!r} has {size} candidates, fewer than k={k} exclusive sub-graphs: "
                    "lower k, or pass reuse=True"
                )
