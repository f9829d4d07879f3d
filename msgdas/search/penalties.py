"""What the alpha step minimises besides the loss, and what it must keep: functions of the alphas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from msgdas.alphas import Alphas
from msgdas.errors import InputError
from msgdas.samplers.dirichlet import concentration
from msgdas.subgraph import SubGraph

__all__ = ["DirichletKL", "ExpectedCost", "keep_unsampled"]


class ExpectedCost:
    """``weight · E[cost] / E_uniform[cost]``, ``E[cost] = Σ_choices Σ_i softmax(a)_i · cost_i`` (ProxylessNAS, Cai et
    al. 2019, arXiv:1812.00332, eq. 7; SNAS, arXiv:1812.09926, section 2.4).

    Args:
        costs: ``(O,)`` of each choice, in any unit (`msgdas.cost.candidate_macs`).
        weight: λ: what a super-net of uniform choices pays.

    Raises:
        InputError: no candidate costs anything, so there is nothing to choose by.
    """

    def __init__(self, costs: Mapping[str, Tensor], weight: float = 0.1) -> None:
        self.costs, self.weight = dict(costs), weight
        self.uniform = sum(float(cost.mean()) for cost in self.costs.values())
        if not self.uniform > 0:
            raise InputError("expected cost: all candidates cost nothing; leave the penalty out")

    def __call__(self, alphas: Alphas) -> Tensor:
        p = alphas.probabilities()
        expected = torch.stack([(p[name] * cost.to(p[name])).sum() for name, cost in self.costs.items()]).sum()
        return self.weight * expected / self.uniform


class DirichletKL:
    """``weight · Σ_choices KL(Dirichlet(elu(a) + 1) ‖ Dirichlet(1))`` (DrNAS, Chen et al. 2021, arXiv:2006.10355,
    eq. 6): keeps the draws from collapsing early."""

    def __init__(self, weight: float = 1e-3) -> None:
        self.weight = weight

    def __call__(self, alphas: Alphas) -> Tensor:
        betas = [concentration(alphas[name]).clamp_min(1e-3) for name in alphas.names]
        return (
            self.weight * torch.stack([kl_divergence(Dirichlet(b), Dirichlet(torch.ones_like(b))) for b in betas]).sum()
        )


@torch.no_grad()
def keep_unsampled(alphas: Alphas, before: Mapping[str, Tensor], subgraphs: Sequence[SubGraph]) -> None:
    """ProxylessNAS's rescaling after an alpha step: the candidates that were not sampled keep their probability.

    The logits of the sampled ones (those that ran or were probed) are shifted together, so that the sum of their
    exponentials is what it was ``before`` (Cai et al. 2019, arXiv:1812.00332, section 3.2.1). One sub-graph.
    """
    (subgraph,) = subgraphs
    for name in alphas.names:
        sampled = list(subgraph[name].active + subgraph[name].probe)
        now = alphas[name]
        now[sampled] += before[name][sampled].logsumexp(0) - now[sampled].logsumexp(0)
