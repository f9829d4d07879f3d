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
        uniform = sum(float(cost.mean()) for cost in costs.values())
        if not uniform > 0:
            raise InputError("expected cost: all candidates cost nothing; leave the penalty out")
        self.names, self.weight = tuple(costs), weight
        self._shares = torch.cat(list(costs.values())) / uniform  # in the order of the names

    def __call__(self, alphas: Alphas) -> Tensor:
        p = alphas.probabilities()
        p_all = torch.cat([p[name] for name in self.names])
        return self.weight * (p_all * self._shares.to(p_all, non_blocking=True)).sum()


class DirichletKL:
    """``weight · Σ_choices KL(Dirichlet(elu(a) + 1) ‖ Dirichlet(1))`` (DrNAS, Chen et al. 2021, arXiv:2006.10355,
    eq. 6): keeps the draws from collapsing early."""

    def __init__(self, weight: float = 1e-3) -> None:
        self.weight = weight

    def __call__(self, alphas: Alphas) -> Tensor:
        betas = [concentration(alphas[name]).clamp_min(1e-3) for name in alphas.names]
        return self.weight * torch.stack([_from_uniform(beta) for beta in betas]).sum()


def _from_uniform(beta: Tensor) -> Tensor:
    uniform = Dirichlet(torch.ones_like(beta), validate_args=False)  # validation would wait for the device
    return kl_divergence(Dirichlet(beta, validate_args=False), uniform)


@torch.no_grad()
def keep_unsampled(alphas: Alphas, before_CO: Tensor, subgraphs: Sequence[SubGraph]) -> None:
    """ProxylessNAS's rescaling after an alpha step: the candidates that were not sampled keep their probability.

    The logits of the sampled ones (those that ran or were probed) are shifted together, so that the sum of their
    exponentials is what it was before (Cai et al. 2019, arXiv:1812.00332, section 3.2.1). One sub-graph.
    """
    (subgraph,) = subgraphs
    sampled_CO = torch.zeros(before_CO.shape, dtype=torch.bool)
    for row, name in zip(sampled_CO, alphas.names, strict=True):
        row[list(subgraph[name].active + subgraph[name].probe)] = True
    sampled_CO = sampled_CO.to(before_CO.device, non_blocking=True)
    sums = [logits.masked_fill(~sampled_CO, -torch.inf).logsumexp(-1) for logits in (before_CO, alphas.stack())]
    shift_CO = torch.where(sampled_CO, (sums[0] - sums[1])[:, None], 0.0)
    for shift_O, name in zip(shift_CO, alphas.names, strict=True):
        alphas[name].add_(shift_O[: len(alphas[name])])
