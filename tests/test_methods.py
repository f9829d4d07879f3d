"""What each method's own parts compute, against their formulas, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from reference import X, Y, alphas_of, change, searching, seeded, small_net, written_out
from torch import nn
from torch.distributions import Dirichlet as Distribution
from torch.nn import functional as F

from msgdas import methods
from msgdas.alphas import Alphas
from msgdas.choice import MixedInput, MixedOp
from msgdas.errors import InputError
from msgdas.ops.statistics import quiet
from msgdas.samplers import BinaryGates, Dirichlet, GumbelSoftmax, GumbelTopK, Topology
from msgdas.samplers._relax import gumbel_like
from msgdas.search.gradients import AlphaStep, added, first_order
from msgdas.search.method import Method
from msgdas.search.penalties import keep_unsampled
from msgdas.spaces import toy
from msgdas.subgraph import cut, select


@pytest.fixture
def net():
    return small_net(cells=1)


@pytest.fixture
def alphas(net):
    return alphas_of(net)


def gradient(alphas):
    logits = [alphas[name] for name in alphas.names]
    grad = torch.cat([torch.zeros_like(p) if p.grad is None else p.grad for p in logits])
    alphas.zero_grad(set_to_none=True)
    return grad


# GDAS


@pytest.mark.parametrize("tau", [10.0, 1.0, 0.1])
def test_gdas_is_gumbel_top_1_draw_for_draw(net, alphas, tau):
    """Written out: ``h = softmax((log p + g) / τ)``, the largest runs, its output times ``hard − sg(h) + h``."""
    (draw,) = methods.gdas().sampler(alphas, tau=tau, generator=seeded(4))
    noise_CO = gumbel_like(alphas.stack().detach(), seeded(4))
    gates = {}
    for c, name in enumerate(alphas.names):
        h = ((alphas[name].log_softmax(-1) + noise_CO[c]) / tau).softmax(-1)
        i = int(h.argmax())
        assert draw[name].active == (i,)
        gates[name] = F.one_hot(torch.tensor(i), len(h)) - h.detach() + h
    with quiet(net):
        first_order(AlphaStep(net, alphas, [draw], lambda: F.cross_entropy(net(X), Y)))
        given = gradient(alphas)
        F.cross_entropy(written_out(net, _official(gates, "nothing"))(X), Y).backward()
    torch.testing.assert_close(given, gradient(alphas), rtol=1e-9, atol=1e-12)


def test_added_gives_the_others_the_gradient_of_a_scalar_that_is_added(net, alphas):
    (draw,) = GumbelTopK(1)(alphas, tau=2.0, generator=seeded(4))
    with quiet(net):
        added(AlphaStep(net, alphas, [draw], lambda: F.cross_entropy(net(X), Y)))
        given = gradient(alphas)
        (draw,) = GumbelTopK(1)(alphas, tau=2.0, generator=seeded(4))
        F.cross_entropy(written_out(net, _official({n: g.weights for n, g in draw.items()}, "scalar"))(X), Y).backward()
    wanted = gradient(alphas)
    torch.testing.assert_close(given, wanted, rtol=1e-9, atol=1e-12)
    assert wanted.abs().max() > 1e-4


def _official(gates, others):
    """GDAS's mixed operation as its public code has it."""

    def output(name, candidates, x):
        gate = gates[name]
        i = int(gate.argmax())
        y = gate[i] * candidates[i](x)
        return y + gate[torch.arange(len(gate)) != i].sum() if others == "scalar" else y

    return output


# ProxylessNAS


@pytest.mark.parametrize("seed", range(3))
def test_binary_gates_are_the_two_path_formula(net, alphas, seed):
    """``∂L/∂a_i = Σ_{j in pair} ∂L/∂g_j · p_j (δ_ij − p_i)``, both paths of the pair run (section 3.2.1, eq. 4)."""
    (draw,) = BinaryGates()(alphas, generator=seeded(seed))
    binary = {n: g.weights.detach().clone().requires_grad_() for n, g in draw.items()}

    def pair_of(name, candidates, x):
        gate, (i,), (j,) = binary[name], draw[name].active, draw[name].probe
        return gate[i] * candidates[i](x) + gate[j] * candidates[j](x).detach()

    pairs = written_out(net, pair_of)
    with quiet(pairs), quiet(net):
        F.cross_entropy(pairs(X), Y).backward()
        first_order(AlphaStep(net, alphas, [draw], lambda: F.cross_entropy(net(X), Y)))
    wanted = []
    for name in alphas.names:
        pair = [*draw[name].active, *draw[name].probe]
        p = alphas[name].detach()[pair].softmax(-1)
        row = torch.zeros_like(alphas[name])
        for i in range(2):
            for j in range(2):
                if binary[name].grad is not None:  # a choice that the loss does not reach
                    row[pair[i]] += binary[name].grad[pair[j]] * p[j] * (float(i == j) - p[i])
        wanted.append(row)
    torch.testing.assert_close(gradient(alphas), torch.cat(wanted), rtol=1e-9, atol=1e-12)


def test_unsampled_candidates_keep_their_probability():
    """Through real alpha steps: whatever the pair does, the others' probabilities stay."""
    torch.manual_seed(0)
    net, answer, weight = toy.problem(0)
    search = searching(net, methods.proxylessnas(), steps=20, alpha_lr=0.1)
    seen = []

    def watch(alphas, before, subgraphs):
        keep_unsampled(alphas, before, subgraphs)
        for name in alphas.names:
            sampled = subgraphs[0][name].active + subgraphs[0][name].probe
            others = [i for i in range(len(alphas[name])) if i not in sampled]
            was = before[alphas.names.index(name), : len(alphas[name])].softmax(-1)
            torch.testing.assert_close(alphas[name].softmax(-1)[others], was[others])
            seen.append((alphas[name].softmax(-1) - was)[list(sampled)].abs().max().item())

    change(search, after_alpha_step=watch)
    data = toy.batches(answer, weight)
    for _ in range(20):
        search.step(next(data), next(data))
    assert max(seen) > 0.01


# SNAS, DrNAS, ROME


def test_snas_moves_weights_and_alphas_by_one_pass():
    torch.manual_seed(0)
    net, answer, weight = toy.problem(0)
    search = searching(net, methods.snas(), steps=2, alpha_lr=0.1, tau=1.0)
    batch = next(toy.batches(answer, weight))
    generator = copy.deepcopy(search.generator.get_state())
    alphas, passes = copy.deepcopy(search.alphas), []
    search.net.register_forward_hook(lambda *_: passes.append(1))
    twin = copy.deepcopy(net)
    search.step(batch, None)
    assert len(passes) == 1
    (draw,) = GumbelSoftmax()(alphas, generator=torch.Generator().set_state(generator))
    with select(twin, draw):
        F.cross_entropy(twin(batch[0]), batch[1]).backward()
    for name in alphas.names:  # Adam's first step is the sign of the gradient
        moved = search.alphas[name] - alphas[name]
        torch.testing.assert_close(moved.sign(), -alphas[name].grad.sign(), rtol=0, atol=0)
    assert any(not torch.equal(p, q) for p, q in zip(net.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("learning", ["joint", "none"])
def test_only_alternating_methods_have_a_hypergradient(learning):
    with pytest.raises(InputError, match=f"learning='{learning}' has no alpha step"):
        Method(GumbelSoftmax(), hypergradient=first_order, learning=learning)


def test_dirichlet_draws_have_the_mean_and_variance_of_the_law():
    alphas = Alphas({"a": 3}).double()
    with torch.no_grad():
        alphas["a"].copy_(torch.tensor([1.0, -0.5, 0.0]))
    generator = seeded()
    draws = torch.stack([Dirichlet()(alphas, generator=generator)[0]["a"].weights.detach() for _ in range(4000)])
    law = Distribution(F.elu(alphas["a"].detach()) + 1)
    assert ((draws.mean(0) - law.mean).abs() < 5 * (law.variance / len(draws)).sqrt()).all()
    torch.testing.assert_close(draws.var(0), law.variance, rtol=0.1, atol=0)


def test_topology_keeps_two_edges_and_one_operation():
    edges = {str(i): nn.Sequential(MixedOp(f"op{i}", {"l": nn.Linear(3, 3), "s": nn.Identity()})) for i in range(4)}
    node = MixedInput("node", edges, keep=2, searched=True).double()
    alphas = Alphas.of(node, init=1.0, generator=seeded()).double()
    xs = [torch.randn(2, 3).double() for _ in range(4)]
    seen = set()
    for seed in range(40):
        draw = Topology(2)(alphas, tau=0.5, generator=seeded(seed))
        for subgraph in draw:
            kept = subgraph["node"].active
            seen.add(kept)
            assert subgraph["node"].weights.tolist() == [float(i in kept) for i in range(4)]
            assert all(len(subgraph[f"op{i}"].active) == 1 for i in range(4))
            with select(node, subgraph):
                given = node(xs)
            wanted = sum(edges[str(i)][0].candidates[subgraph[f"op{i}"].active[0]](xs[i]) for i in kept)
            assert torch.equal(given, wanted)
    assert len(seen) > 3


def test_topology_edges_follow_plackett_luce():
    logits = torch.tensor([0.5, -0.3, 0.9, 0.0], dtype=torch.float64)
    copies = 4000
    alphas = Alphas({f"n{i}": 4 for i in range(copies)}, keep={f"n{i}": 2 for i in range(copies)}).double()
    with torch.no_grad():
        for p in alphas.parameters():
            p.copy_(logits)
        (draw,) = Topology()(alphas, generator=seeded(2))
    p, counts = logits.softmax(-1), {}
    for gate in draw.values():
        counts[gate.active] = counts.get(gate.active, 0) + 1
    for (i, j), number in counts.items():
        law = float(p[i] * p[j] / (1 - p[i]) + p[j] * p[i] / (1 - p[j]))
        assert abs(number - copies * law) < 5 * (copies * law * (1 - law)) ** 0.5


def test_cut_takes_the_samplers_probes(alphas):
    (draw,) = BinaryGates()(alphas, generator=seeded())
    (leaf,), _ = cut([draw])
    assert all(leaf[name].probe == draw[name].probe for name in alphas.names)
