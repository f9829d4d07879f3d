"""Penalties on the alphas, added to their loss, and ProxylessNAS's rescaling after an alpha step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from msgdas.alphas import Alphas
from msgdas.errors import InputError
from msgdas.samplers.dirichlet import concentration
from msgdas.subgraph import SubGraph

__all__ = ["DirichletKL", "ExpectedCost", "keep_unsampled"]


@dataclass(frozen=True, eq=False)
class ExpectedCost:
    """Expected cost of the sub-graph that the alphas would draw, relative to uniform choices.

    ``weight · E[cost] / E_uniform[cost]`` with ``E[cost] = Σ_choices Σ_i softmax(a)_i · cost_i`` (ProxylessNAS, Cai et
    al. 2019, arXiv:1812.00332, eq. 7; SNAS, arXiv:1812.09926, section 2.4).

    Examples:
        >>> penalty = ExpectedCost(candidate_macs(net), weight=0.1)
        >>> replace(methods.snas(), penalties=[penalty])

    Args:
        costs: choice name → ``(O,)`` costs of its candidates, in any unit (`msgdas.cost.candidate_macs`).
        weight: λ, the value of the penalty when every choice is uniform.

    Raises:
        InputError: all candidates cost nothing.
    """

    costs: Mapping[str, Tensor] = field(repr=False)
    weight: float = 0.1

    def __post_init__(self) -> None:
        if not self._uniform > 0:
            raise InputError("expected cost: all candidates cost nothing; leave the penalty out")

    def __call__(self, alphas: Alphas) -> Tensor:
        p = alphas.probabilities()
        p_all = torch.cat([p[name] for name in self.costs])
        return self.weight * (p_all * self._relative.to(p_all, non_blocking=True)).sum()

    @property
    def _uniform(self) -> float:
        """Expected cost of uniform choices."""
        return sum(float(cost.mean()) for cost in self.costs.values())

    @cached_property
    def _relative(self) -> Tensor:
        """The costs of all candidates in the order of ``costs``, relative to uniform choices."""
        return torch.cat(list(self.costs.values())) / self._uniform


@dataclass(frozen=True)
class DirichletKL:
    """``weight · Σ_choices KL(Dirichlet(elu(a) + 1) ‖ Dirichlet(1))`` (DrNAS, Chen et al. 2021, arXiv:2006.10355,
    eq. 6). Keeps the draws from collapsing early."""

    weight: float = 1e-3

    def __call__(self, alphas: Alphas) -> Tensor:
        betas = [concentration(alphas[name]).clamp_min(1e-3) for name in alphas.names]
        return self.weight * torch.stack([_from_uniform(beta) for beta in betas]).sum()


def _from_uniform(beta: Tensor) -> Tensor:
    uniform = Dirichlet(torch.ones_like(beta), validate_args=False)  # validating waits for the device
    return kl_divergence(Dirichlet(beta, validate_args=False), uniform)


@torch.no_grad()
def keep_unsampled(alphas: Alphas, before_CO: Tensor, subgraphs: Sequence[SubGraph]) -> None:
    """Rescale the alphas so that candidates that were not sampled keep their probability.

    Shifts the logits of the sampled candidates (those that ran or were probed) by one constant per choice, so that the
    sum of their exponentials is what it was before the step (Cai et al. 2019, arXiv:1812.00332, section 3.2.1). Needs
    exactly one sub-graph.
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
