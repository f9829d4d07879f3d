"""From alphas to a genotype to a plain network that computes the same, bit for bit."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import nn

from msgdas.alphas import Alphas
from msgdas.choice import Choice, MixedInput, MixedOp
from msgdas.derive import argmax, derive, top_edges
from msgdas.discretize import discretize
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.ops import DropBlockIdentity, Zero, relu_conv_bn
from msgdas.samplers import Fixed
from msgdas.spaces import nasbench201
from msgdas.supernet import select


def genotype_of(seed):
    pick = random.Random(seed).choice
    ops = list(nasbench201.OPERATIONS)
    return Genotype("nasbench201", {f"cell/{s}-{t}": pick(ops) for s, t in nasbench201.EDGES})


class Cells(nn.Module):
    """Two cells of a small DARTS space that share their choices: three nodes, the last with three edges, two kept."""

    def __init__(self, searched=False):
        super().__init__()

        def edge(name):
            ops = {"none": Zero(), "skip": DropBlockIdentity(), "conv": relu_conv_bn(3, 3, 3), "pool": nn.AvgPool2d(1)}
            return nn.Sequential(MixedOp(name, ops), nn.Identity())

        self.cells = nn.ModuleList(
            MixedInput("node", {f"e{i}": edge(f"edge/{i}") for i in range(3)}, keep=2, searched=searched)
            for _ in range(2)
        )
        self.classifier = nn.Linear(3, 4)

    def forward(self, x):
        for cell in self.cells:
            x = cell([x, x.tanh(), x.square()])
        return self.classifier(x.mean((2, 3)))


def assert_bit_equal(net, genotype, x):
    """In training and in evaluation mode, running statistics included; the super-net stays what it was."""
    before = copy.deepcopy(net.state_dict())
    small = discretize(net, genotype)
    assert not any(isinstance(m, (Choice, DropBlockIdentity)) for m in small.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    (subgraph,) = Fixed(genotype)(Alphas.of(net))
    for mode in (True, False, True, False):
        with select(net.train(mode), subgraph):
            wanted = net(x)
        assert torch.equal(small.train(mode)(x), wanted)
    return small


@pytest.mark.parametrize("seed", range(8))
def test_derived_nasbench201_computes_what_the_supernet_does(seed):
    net = nasbench201.supernet(channels=3, cells=2, classes=4, image_size=8)
    assert_bit_equal(net, genotype_of(seed), torch.randn(4, 3, 8, 8))


@pytest.mark.parametrize("op", nasbench201.OPERATIONS)
def test_derived_cells_of_one_operation_compute_what_the_supernet_does(op):
    net = nasbench201.supernet(channels=3, cells=1, classes=4, image_size=8)
    genotype = Genotype("nasbench201", {f"cell/{s}-{t}": op for s, t in nasbench201.EDGES})
    assert_bit_equal(net, genotype, torch.randn(4, 3, 8, 8))


@pytest.mark.parametrize("rule", [argmax, top_edges])
@pytest.mark.parametrize("searched", [False, True])
def test_derived_dag_computes_what_the_supernet_does(searched, rule):
    net = Cells(searched)
    for seed in range(5):
        alphas = Alphas.of(net, init=1.0, generator=torch.Generator().manual_seed(seed))
        genotype = derive(net, alphas, rule)
        small = assert_bit_equal(net, genotype, torch.randn(4, 3, 6, 6))
        edges = 3 if rule is argmax and not searched else 2  # argmax leaves an unsearched node as it is
        assert len(small.cells[0].edges) == edges


def test_a_choice_alone_becomes_its_candidate():
    mixed = MixedOp("c", {"a": nn.Linear(2, 2), "b": nn.Tanh()})
    assert isinstance(discretize(mixed, Genotype("custom", {"c": "b"})), nn.Tanh)


def test_a_choice_with_one_candidate_needs_no_decision():
    net = nn.Sequential(MixedOp("only", [nn.Tanh()]), MixedOp("c", [nn.ReLU(), nn.Sigmoid()]))
    alphas = Alphas.of(net)
    assert alphas.names == ("c",)
    small = discretize(net, derive(net, alphas))
    assert isinstance(small[0], nn.Tanh)


@pytest.mark.parametrize("nested", [True, False])
def test_modules_in_unusual_places_are_replaced_too(nested):
    """A choice that is itself a candidate; a module that its parent holds under two names."""
    inner = MixedOp("inner", {"a": nn.ReLU(), "b": nn.Tanh()})
    if nested:
        net = nn.Sequential(MixedOp("outer", {"inner": inner, "skip": nn.Identity()}))
        genotype = Genotype("custom", {"outer": "inner", "inner": "b"})
    else:
        drop = DropBlockIdentity()
        net = nn.Sequential(inner, drop, inner, drop)
        genotype = Genotype("custom", {"inner": "b"})
    small = discretize(net, genotype)
    assert not any(isinstance(m, (Choice, DropBlockIdentity)) for m in small.modules())


@pytest.mark.parametrize(
    ("kept", "line"),
    [
        ({}, r"does not decide choice 'c'"),
        ({"c": "z"}, r"'c' has no candidate 'z': use a, b"),
        ({"c": ("a", "b")}, r"'c' must keep one operation; the genotype keeps 2"),
    ],
)
def test_a_genotype_that_does_not_fit_names_the_choice(kept, line):
    with pytest.raises(InputError, match=line):
        discretize(nn.Sequential(MixedOp("c", {"a": nn.ReLU(), "b": nn.Tanh()})), Genotype("custom", kept))


# rules


def set_probabilities(alphas, **probabilities):
    with torch.no_grad():
        for i, p in enumerate(probabilities.values()):
            alphas[f"edge/{i}"].copy_(torch.tensor(p).log())


def test_argmax_takes_the_most_likely_candidate_none_included():
    net = nasbench201.supernet(channels=2, image_size=8)
    alphas = Alphas.of(net, init=1.0)
    genotype = derive(net, alphas)
    assert genotype.space == "nasbench201"
    for name in alphas.names:
        assert genotype[name] == (alphas.labels[name][int(alphas[name].argmax())],)
    with torch.no_grad():
        alphas["cell/0-1"][0] = 9.0
    assert derive(net, alphas)["cell/0-1"] == ("none",)


def test_top_edges_ranks_without_none_in_a_softmax_that_includes_it():
    """Edge 0 has the strongest operation among those that are not ``none``, but only where ``none`` is left out of the
    softmax; and the most likely ``none`` of all, which must not win either."""
    net = Cells()
    alphas = Alphas.of(net)
    edges = {"e0": [0.80, 0.01, 0.18, 0.01], "e1": [0.10, 0.30, 0.25, 0.35], "e2": [0.05, 0.40, 0.30, 0.25]}
    set_probabilities(alphas, **edges)
    genotype = derive(net, alphas, top_edges)
    assert genotype["node"] == ("e1", "e2")
    assert [genotype[f"edge/{i}"] for i in range(3)] == [("conv",), ("pool",), ("skip",)]


def test_top_edges_needs_operations_to_rank_by():
    net = nn.Sequential(MixedInput("node", [nn.Tanh(), nn.ReLU()]), MixedOp("c", [nn.Tanh(), nn.ReLU()]))
    with pytest.raises(InputError, match="'node' has no MixedOp"):
        derive(net, Alphas.of(net), top_edges)


def test_a_rule_is_an_argument_or_the_networks_own():
    net = nn.Sequential(MixedOp("c", {"a": nn.Tanh(), "b": nn.ReLU()}))
    alphas = Alphas.of(net)
    assert derive(net, alphas, lambda net, alphas: {"c": ("b",)}) == Genotype("custom", {"c": "b"})
    net.rule = lambda net, alphas: {"c": ("a",)}
    assert derive(net, alphas) == Genotype("custom", {"c": "a"})
