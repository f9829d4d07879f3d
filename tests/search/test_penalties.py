"""Penalties on the alphas, and what candidates cost."""

from __future__ import annotations

import pytest
import torch
from reference import searching, seeded
from torch import nn
from torch.nn import functional as F

from msgdas import methods
from msgdas.alphas import Alphas
from msgdas.choice import MixedInput, MixedOp
from msgdas.cost import candidate_macs, count
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.search.penalties import DirichletKL, ExpectedCost
from msgdas.spaces import nasbench201, toy


def test_dirichlet_kl_is_its_closed_form():
    alphas = Alphas({"a": 3, "b": 4}, init=0.7, generator=seeded()).double()
    wanted = 0
    for name in alphas.names:
        beta = F.elu(alphas[name].detach()) + 1
        total, o = beta.sum(), len(beta)
        wanted = wanted + torch.lgamma(total) - torch.lgamma(beta).sum() - torch.lgamma(torch.tensor(float(o)).double())
        wanted = wanted + ((beta - 1) * (torch.digamma(beta) - torch.digamma(total))).sum()
    torch.testing.assert_close(DirichletKL(2.0)(alphas).item(), 2.0 * wanted.item(), rtol=1e-10, atol=0)


def test_candidate_macs_add_up_to_the_cost_of_what_is_derived():
    net = nasbench201.supernet(channels=4, cells=2)
    costs = candidate_macs(net)
    none = dict.fromkeys(costs, "none")
    empty = count(nasbench201.network(Genotype("nasbench201", none), channels=4, cells=2)).macs
    kept = {name: list(nasbench201.OPERATIONS)[i % 5] for i, name in enumerate(costs)}
    total = sum(costs[name][list(nasbench201.OPERATIONS).index(label)].item() for name, label in kept.items())
    assert count(nasbench201.network(Genotype("nasbench201", kept), channels=4, cells=2)).macs == empty + total


def test_an_edge_costs_what_no_choice_inside_it_decides():
    inner = {
        str(i): nn.Sequential(
            nn.Conv2d(2, 2, 1), MixedOp(f"op{i}", {"c": nn.Conv2d(2, 2, 3, padding=1), "s": nn.Identity()})
        )
        for i in range(2)
    }

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.node = MixedInput("node", inner, keep=1, searched=True)

        def forward(self, x):
            return self.node([x, x])

    costs = candidate_macs(Net(), in_channels=2, image_size=4)
    assert costs["node"].tolist() == [2 * 2 * 16] * 2
    assert costs["op0"].tolist() == [9 * 2 * 2 * 16, 0]


def test_expected_cost_is_its_expectation_and_cheapens_what_is_found():
    costs = {"a": torch.tensor([0.0, 2.0]).double(), "b": torch.tensor([1.0, 5.0, 3.0]).double()}
    alphas = Alphas({"a": 2, "b": 3}, init=0.0).double()
    penalty = ExpectedCost(costs, weight=0.3)
    torch.testing.assert_close(penalty(alphas).item(), 0.3)
    with torch.no_grad():
        alphas["b"].copy_(torch.tensor([0.0, 50.0, 0.0]))
    torch.testing.assert_close(penalty(alphas).item(), 0.3 * (1 + 5) / (1 + 3))
    with pytest.raises(InputError, match="cost nothing"):
        ExpectedCost({"a": torch.zeros(2)})


@pytest.mark.parametrize("name", ["proxylessnas", "snas", "msgdas", "darts"])
def test_a_heavy_penalty_finds_the_free_candidate(name):
    net, answer, weight = toy.problem(1)
    costs = {f"part/{c}": torch.tensor([0.0, 1.0, 1.0, 1.0]) for c in range(3)}
    penalties = [ExpectedCost(costs, weight=50.0)]
    search = searching(net, methods.METHODS[name](), steps=120, alpha_lr=0.1, penalties=penalties)
    data = toy.batches(answer, weight)
    for _ in range(120):
        search.step(next(data), next(data))
    assert set(search.derive().decisions().values()) == {("none",)}
