"""Hypergradients against naive references, in float64."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from reference import X, Y, alphas_of, searching, seeded, small_net, written_out
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from msgdas.alphas import Alphas
from msgdas.choice import MixedInput, MixedOp
from msgdas.errors import InputError
from msgdas.methods import msgdas
from msgdas.ops import DropBlockIdentity
from msgdas.ops.statistics import quiet
from msgdas.samplers import Fixed, GumbelTopK, Softmax
from msgdas.search.comparing import Exchange, compare, ranked
from msgdas.search.gradients import AlphaStep, first_order, mean_backward, probed
from msgdas.spaces import nasbench201
from msgdas.subgraph import Gate, SubGraph, cut
from msgdas.supernet import select


@pytest.fixture
def net():
    return small_net(cells=2)


@pytest.fixture
def alphas(net):
    return alphas_of(net)


def step_of(net, alphas, subgraphs, **settings):
    return AlphaStep(net, alphas, subgraphs, lambda: F.cross_entropy(net(X), Y), **settings)


def grads_of(module):
    """All gradients, and none left behind."""
    grads = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
    module.zero_grad(set_to_none=True)
    return grads


def assert_same(given, wanted, tolerance=1e-12):
    assert any(g is not None and g.abs().max() > 1e-6 for g in wanted)
    for a, b in zip(given, wanted, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def naive(net, gates):
    """The network with every choice replaced by ``Σ_i w_i · o_i(x)`` over all candidates."""
    return written_out(net, lambda name, candidates, x: sum(w * o(x) for w, o in zip(gates[name], candidates)))


@pytest.mark.parametrize("sampler", [GumbelTopK(3), GumbelTopK(3, "shuffle", "picks"), Softmax()], ids=str)
def test_cut_and_push_are_the_gradient_of_the_mean_loss(net, alphas, sampler):
    with quiet(net):
        subgraphs = sampler(alphas, generator=seeded(1))
        for subgraph in subgraphs:
            with select(net, subgraph):
                loss = F.cross_entropy(net(X), Y) / len(subgraphs)
                torch.autograd.backward(loss, inputs=list(alphas.parameters()), retain_graph=True)
        wanted = grads_of(alphas)
        first_order(step_of(net, alphas, sampler(alphas, generator=seeded(1))))
    assert_same(grads_of(alphas), wanted)


def test_push_skips_gates_without_gradient():
    """A choice that the loss does not reach must not count as a gradient of one."""
    alphas = Alphas({"used": 2, "idle": 2}).double()
    leaves, push = cut(Softmax()(alphas))
    leaves[0]["used"].weights[0].backward()
    push()
    assert alphas["used"].grad.any()
    assert alphas["idle"].grad is None


@pytest.mark.parametrize("hypergradient", [first_order, probed, compare])
def test_together_and_one_after_another_are_the_same(net, alphas, hypergradient):
    found = []
    for parallel in (False, True):
        with quiet(net):
            hypergradient(step_of(net, alphas, GumbelTopK(3)(alphas, generator=seeded(2)), parallel=parallel))
        found.append(grads_of(alphas))
    assert_same(found[1], found[0])


def test_weight_gradients_together_and_one_after_another_are_the_same(net, alphas):
    found = []
    with torch.no_grad():
        subgraphs = GumbelTopK(3)(alphas, generator=seeded(2))
    for parallel in (False, True):
        mean_backward(net, subgraphs, lambda: F.cross_entropy(net(X), Y), parallel=parallel)
        found.append(grads_of(net))
    assert_same(found[1], found[0])
    assert any(g is None for g in found[0])  # 18 draws do not reach every convolution


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("hypergradient", [probed, first_order])
def test_gate_gradients_are_those_of_running_every_candidate(net, alphas, hypergradient, seed):
    subgraphs = GumbelTopK(3, "shuffle")(alphas, tau=0.8, generator=seeded(seed))
    for subgraph in subgraphs:
        leaves = {name: gate.weights.detach().requires_grad_() for name, gate in subgraph.items()}
        reference = naive(net, leaves)
        with quiet(reference):
            (F.cross_entropy(reference(X), Y) / 3).backward()
        for name, gate in subgraph.items():
            grad = leaves[name].grad if hypergradient is probed else leaves[name].grad * gate.weights.detach()
            gate.weights.backward(grad, retain_graph=True)
    wanted = grads_of(alphas)
    with quiet(net):
        hypergradient(step_of(net, alphas, subgraphs))
    assert_same(grads_of(alphas), wanted, 1e-10)


def test_probes_do_not_drop_and_leave_no_trace_even_where_the_step_does(net, alphas):
    """DropBlock on and running statistics kept in the step itself: the probes alone must be quiet."""
    names, convs = alphas.names, (2, 3)
    picks = {name: convs[i % 2] for i, name in enumerate(names)}
    gates = {n: Gate((i,), F.one_hot(torch.tensor(i), 5).double() + 0 * alphas[n]) for n, i in picks.items()}
    leaves = {name: gate.weights.detach().requires_grad_() for name, gate in gates.items()}
    for module in net.modules():
        if isinstance(module, DropBlockIdentity):
            module.p = 0.5
    reference = naive(net, leaves)
    with quiet(reference):
        F.cross_entropy(reference(X), Y).backward()
    probes, _ = cut([SubGraph(gates)], others="probed")
    with select(net, probes[0]):
        F.cross_entropy(net(X), Y).backward()
    assert_same([probes[0][n].weights.grad for n in names], [leaves[n].grad for n in names], 1e-10)
    for choice in (m for m in net.modules() if isinstance(m, MixedOp)):
        for i, candidate in enumerate(choice.candidates):
            for norm in (m for m in candidate.modules() if isinstance(m, nn.BatchNorm2d)):
                assert norm.num_batches_tracked == (i == picks[choice.name])
                assert bool(norm.running_mean.any()) == (i == picks[choice.name])


def test_a_searched_mixed_input_is_probed_on_each_edges_own_input():
    torch.manual_seed(1)
    node = MixedInput("node", [nn.Linear(3, 3), nn.Identity(), nn.Tanh()], keep=1, searched=True).double()
    xs = [torch.randn(2, 3).double() for _ in range(3)]
    (leaf,), _ = cut([SubGraph({"node": Gate((1,), torch.tensor([0.0, 1.0, 0.0]).double())})], others="probed")
    toward = torch.randn(2, 3).double()
    with select(node, leaf):
        (node(xs) * toward).sum().backward()
    wanted = torch.stack([(toward * edge(x)).sum() for edge, x in zip(node.candidates, xs, strict=True)])
    torch.testing.assert_close(leaf["node"].weights.grad, wanted.detach(), rtol=1e-12, atol=1e-12)


def test_an_identity_used_elsewhere_too_gets_only_its_own_gradient():
    """``y = 3 · x + identity(x)``: a hook on the identity's output would see four times the gradient."""
    mixed = MixedOp("c", {"skip": nn.Identity(), "tanh": nn.Tanh()}).double()
    x = torch.randn(5).double().requires_grad_()
    h = 2 * x
    (leaf,), _ = cut([SubGraph({"c": Gate((0,), torch.tensor([1.0, 0.0]).double())})], others="probed")
    with select(mixed, leaf):
        (3 * h + mixed(h)).sum().backward()
    torch.testing.assert_close(leaf["c"].weights.grad, torch.stack([h.sum(), h.tanh().sum()]).detach())
    torch.testing.assert_close(x.grad, torch.full_like(x, 8.0))


@pytest.mark.parametrize("hypergradient", [first_order, probed, compare])
@pytest.mark.parametrize("parallel", [False, True])
def test_an_alpha_step_forms_no_weight_gradient(net, alphas, hypergradient, parallel):
    with quiet(net):
        hypergradient(step_of(net, alphas, GumbelTopK(3)(alphas, generator=seeded()), parallel=parallel))
    assert all(p.grad is None for p in net.parameters())
    assert all(p.grad is not None for p in alphas.parameters())


def test_a_picked_alpha_step_saves_the_weight_gradients_flops(net, alphas):
    """The gradient of a convolution's weight costs what its forward costs; the alpha step pays for none."""
    best = dict.fromkeys(alphas.names, ("nor_conv_3x3",))
    leaves, _ = cut(Fixed(nasbench201.Genotype("nasbench201", best))(alphas))
    gates = [[gate.weights for gate in leaf.values()] for leaf in leaves]

    def flops(function):
        with FlopCounterMode(display=False) as counter:
            function()
        return counter.get_total_flops()

    def objective():
        return F.cross_entropy(net(X), Y)

    with select(net, leaves[0]):
        forward = flops(objective)
    picked = flops(lambda: mean_backward(net, leaves, objective, inputs=gates))
    full = flops(lambda: mean_backward(net, leaves, objective))
    assert forward < picked <= full - forward


# compare


class OneChoice:
    """One choice whose candidates have fixed losses."""

    def __init__(self, size=4):
        self.losses = torch.tensor([0.3, 1.7, 0.9, 2.6][:size]).double()
        self.net = MixedOp("c", [nn.Identity() for _ in range(size)])
        self.alphas = Alphas({"c": size}, init=0.8, generator=seeded(1)).double()

    def compare(self, subgraphs):
        compare(AlphaStep(self.net, self.alphas, subgraphs, lambda: self.losses[self.net.gate.active[0]]))
        return grads_of(self.alphas)[0]

    def formula(self, picks):
        p, total = self.alphas["c"].detach().softmax(-1), 0
        for k, i in enumerate(picks):
            others = [float(self.losses[j]) for m, j in enumerate(picks) if m != k]
            advantage = self.losses[i] - sum(others) / len(others)
            total = total + advantage * (F.one_hot(torch.tensor(i), len(p)) - p) / len(picks)
        return total


@pytest.mark.parametrize("k", [2, 3, 4])
def test_compare_is_its_formula_on_every_draw(k):
    one = OneChoice()
    for seed in range(10):
        draw = GumbelTopK(k, "shuffle")(one.alphas, generator=seeded(seed))
        wanted = one.formula([s["c"].active[0] for s in draw])
        torch.testing.assert_close(one.compare(draw), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("k", [2, 3])
def test_compare_averages_to_its_enumerated_expectation(k):
    one, generator = OneChoice(), seeded(3)
    p, expected = one.alphas["c"].detach().softmax(-1).tolist(), 0
    for picks in itertools.permutations(range(4), k):
        probability, left = 1.0, 1.0
        for i in picks:
            probability, left = probability * p[i] / left, left - p[i]
        expected = expected + probability * one.formula(picks)
    sampler = GumbelTopK(k)
    draws = torch.stack([one.compare(sampler(one.alphas, generator=generator)) for _ in range(1000)])
    error = (draws.mean(0) - expected).abs()
    assert (error < 4.5 * draws.std(0) / len(draws) ** 0.5).all()
    assert expected.abs().max() > 10 * error.max() / 4.5


def test_compare_pushes_away_from_what_loses():
    one = OneChoice(2)
    gradient = one.compare(GumbelTopK(2)(one.alphas, generator=seeded()))
    assert gradient[0] < 0 < gradient[1]  # descent raises the logit of the smaller loss


def test_compare_needs_two_single_paths():
    one = OneChoice()
    with pytest.raises(InputError, match=r"k=2 or more"):
        one.compare(GumbelTopK(1)(one.alphas))
    with pytest.raises(InputError, match=r"runs 4 candidates at 'c'"):
        one.compare(Softmax()(one.alphas) * 2)


# ranked


def ranked_gradient(one, draw, losses_K, memory):
    """Of `ranked` where the k-th sub-graph has the k-th loss, whatever it is."""
    given = iter(losses_K)
    ranked(AlphaStep(one.net, one.alphas, draw, lambda: next(given), memory=memory))
    return grads_of(one.alphas)[0]


def test_ranked_does_not_credit_candidates_with_their_place():
    one, memory = OneChoice(), {}
    places = torch.tensor([1.0, 2.0, 4.0]).double()  # the first ones always win
    for seed in range(5):
        draw = GumbelTopK(3)(one.alphas, generator=seeded(seed))
        assert not ranked_gradient(one, draw, places, memory).any()
    draw = GumbelTopK(3)(one.alphas, generator=seeded())
    given = iter(places)
    compare(AlphaStep(one.net, one.alphas, draw, lambda: next(given)))
    assert one.alphas["c"].grad.any()


def test_ranked_is_compare_less_the_running_mean_of_the_advantages():
    one, memory, usual = OneChoice(), {}, None
    for seed in range(6):
        draw = GumbelTopK(2)(one.alphas, generator=seeded(seed))
        losses = torch.rand(2, generator=seeded(10 + seed)).double()
        advantage = torch.stack([losses[0] - losses[1], losses[1] - losses[0]])
        usual = advantage if usual is None else usual
        p = one.alphas["c"].detach().softmax(-1)
        scores = torch.stack([F.one_hot(torch.tensor(s["c"].active[0]), 4) - p for s in draw])
        wanted = ((advantage - usual)[:, None] * scores).mean(0)
        torch.testing.assert_close(ranked_gradient(one, draw, losses, memory), wanted, rtol=1e-12, atol=1e-12)
        usual = 0.95 * usual + 0.05 * advantage


def test_what_ranked_remembers_is_saved_with_the_search():
    torch.manual_seed(0)
    search = searching(small_net(1), msgdas(gradient="ranked"), warmup=0.0, steps=9)
    for _ in range(2):
        search.step((X, Y), (X, Y))
    state, found = copy.deepcopy(search.state_dict()), []
    assert state["memory"]["advantages"].shape == (3,)
    for again in (search, searching(small_net(1), msgdas(gradient="ranked"), warmup=0.0, steps=9)):
        again.load_state_dict(copy.deepcopy(state))
        again.step((X, Y), (X, Y))
        found.append(again.alphas.stack().detach())
    assert torch.equal(*found)


# exchange


class TwoChoices:
    """``L(i, j)``, read from a table; the second choice may be of no account."""

    def __init__(self, losses_IJ):
        self.losses = losses_IJ
        sizes = losses_IJ.shape
        self.net = nn.ModuleList(
            MixedOp(n, [nn.Identity() for _ in range(o)]) for n, o in zip("ab", sizes, strict=True)
        )
        self.alphas = Alphas(dict(zip("ab", sizes, strict=True)), init=0.8, generator=seeded(1)).double()

    def exchange(self, subgraphs, **settings):
        def objective():
            return self.losses[self.net[0].gate.active[0], self.net[1].gate.active[0]]

        Exchange(**settings)(AlphaStep(self.net, self.alphas, subgraphs, objective, generator=seeded(6)))
        return [self.alphas[name].grad for name in "ab"]


@pytest.mark.parametrize("k", [2, 3])
def test_exchange_compares_each_choice_in_the_first_sub_graph(k):
    losses = torch.rand(3, 4, generator=seeded(2)).double()
    for seed in range(10):
        two = TwoChoices(losses)
        draw = GumbelTopK(k)(two.alphas, generator=seeded(seed))
        (i, *others_i), (j, *others_j) = ([s[name].active[0] for s in draw] for name in "ab")
        given = two.exchange(draw, choices=2)
        for name, picks, found in zip("ab", ([i, *others_i], [j, *others_j]), given, strict=True):
            here = [losses[p, j] if name == "a" else losses[i, p] for p in picks]
            p, wanted = two.alphas[name].detach().softmax(-1), 0
            for m, pick in enumerate(picks):
                advantage = here[m] - sum(here[:m] + here[m + 1 :]) / (k - 1)
                wanted = wanted + advantage * (F.one_hot(torch.tensor(pick), len(p)) - p) / k
            torch.testing.assert_close(found, wanted / 2, rtol=1e-12, atol=1e-12)


def test_exchange_does_not_push_a_choice_of_no_account_and_takes_one_at_a_time():
    losses = torch.rand(3, 1, generator=seeded(2)).double().expand(3, 4)
    two = TwoChoices(losses)
    grads = [two.exchange(GumbelTopK(3)(two.alphas, generator=seeded(s)), choices=2) for s in range(5)]
    assert all(not b.any() for _, b in grads)
    one = TwoChoices(torch.rand(3, 4).double())
    assert [g is None for g in one.exchange(GumbelTopK(2)(one.alphas, generator=seeded()), choices=1)].count(True) == 1


def test_exchange_says_what_it_needs():
    two = TwoChoices(torch.rand(3, 4).double())
    with pytest.raises(InputError, match=r"'exchange' needs two"):
        two.exchange(GumbelTopK(1)(two.alphas))
    with pytest.raises(InputError, match=r"use 1 or more"):
        Exchange(0)
    with pytest.raises(InputError, match=r"runs 3 candidates at"):
        two.exchange(Softmax()(two.alphas) * 2, choices=2)


# any network


class TwoInputs(nn.Module):
    """A user's own network: two arguments, a dict as output."""

    def __init__(self):
        super().__init__()
        self.left = MixedOp("left", {"linear": nn.Linear(3, 3), "skip": nn.Identity(), "tanh": nn.Tanh()})
        self.right = MixedOp("right", {"linear": nn.Linear(3, 3), "skip": nn.Identity(), "tanh": nn.Tanh()})

    def forward(self, a, *, b):
        return {"sum": self.left(a) + self.right(b), "left": self.left(a)}


@pytest.mark.parametrize("hypergradient", [first_order, probed, compare])
def test_any_forward_signature_is_searched_untouched(hypergradient):
    net = TwoInputs().double()
    alphas = Alphas.of(net).double()
    a, b = torch.randn(2, 4, 3).double()

    def objective():
        out = net(a, b=b)
        return (out["sum"] + out["left"]).square().mean()

    hypergradient(AlphaStep(net, alphas, GumbelTopK(3)(alphas, generator=seeded()), objective))
    assert all(p.grad is not None and p.grad.any() for p in alphas.parameters())
    assert all(p.grad is None for p in net.parameters())


def test_nested_choices_are_probed_under_their_own_gates_in_parallel_too():
    def inner(name):
        return nn.Sequential(MixedOp(name, {"t": nn.Tanh(), "l": nn.Linear(3, 3)}))

    nested = nn.Sequential(MixedOp("o", {"a": inner("i"), "b": inner("j")}), nn.Linear(3, 2)).double()
    logits = Alphas.of(nested).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    gradients = []
    for parallel in (False, True):
        draw = GumbelTopK(2)(logits, generator=torch.Generator().manual_seed(0))
        probed(AlphaStep(nested, logits, draw, lambda: nested(x).square().mean(), parallel))
        gradients.append([p.grad.clone() for p in logits.parameters()])
        logits.zero_grad()
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)
