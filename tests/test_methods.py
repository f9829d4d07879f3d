"""What each method is made of, and what its own parts compute, against their formulas, in float64."""

from __future__ import annotations

import copy
from dataclasses import fields

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
from msgdas.samplers import BinaryGates, Dirichlet, GumbelSoftmax, GumbelTopK, SinglePath, Softmax, Topology
from msgdas.samplers._relax import gumbel_like
from msgdas.search.early_stop import CurvatureStop
from msgdas.search.gradients import AlphaStep, added, first_order
from msgdas.search.method import Method
from msgdas.search.optimizers import SGD, Adam
from msgdas.search.penalties import DirichletKL, keep_unsampled
from msgdas.search.schedules import Cosine, Linear
from msgdas.search.unrolled import Unrolled
from msgdas.spaces import toy
from msgdas.subgraph import cut
from msgdas.supernet import select


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


# the parts

SHARED = {  # ours, the same for all methods that say nothing else: docs/methods/index.md has the papers' values
    "weight_sampler": None,
    "warmup_sampler": None,
    "hypergradient": None,
    "learning": "alternate",
    "warmup": 0.0,
    "prior": None,
    "guidance": None,
    "supernet_training": None,
    "penalties": (),
    "after_alpha_step": None,
    "early_stop": None,
    "tau": 1.0,
    "weight_lr": Cosine(0.05, 1e-3),
    "alpha_lr": 1e-2,
    "drop": 0.0,
    "drop_block": None,
    "drop_in_alpha_steps": False,
    "clip": 5.0,
    "weight_optimizer": SGD(momentum=0.9, nesterov=True, weight_decay=5e-4),
    "alpha_optimizer": Adam(betas=(0.5, 0.999), weight_decay=0.0),
    "supernet": {},
    "preset": None,
}
EXCLUSIVE = GumbelTopK(k=None, assignment="shuffle", normalise="remaining", reuse=False)
PARTS = {
    # Tan et al. 2021, arXiv:2107.04324: K exclusive paths by Gumbel-TopK, and DropBlock-Identity. The abstract has no
    # numbers: these, the warm-up, the dealing of the picks and guidance turned off are ours (docs/how-it-works.md).
    "msgdas": {
        "sampler": EXCLUSIVE,
        "weight_sampler": EXCLUSIVE,
        "warmup": 0.6,
        "drop": Linear(0.5, 0.0),
        "drop_in_alpha_steps": True,
        "tau": Linear(10.0, 0.1),
        "alpha_lr": 0.03,
        "preset": "default",
    },
    # Dong & Yang 2019, arXiv:1910.04465: one path (eq. 6), the gradient of the gate that ran (eq. 7), τ from 10 to 0.1.
    "gdas": {
        "sampler": GumbelTopK(k=1, assignment="rank", normalise="remaining", reuse=False),
        "hypergradient": first_order,
        "tau": Linear(10.0, 0.1),
    },
    # Cai et al. 2019, arXiv:1812.00332: weights learn on paths drawn with p = softmax(a) (eq. 2), alphas on two of the
    # paths, the others keep their probability (section 3.2.1). Without momentum, which would move them too.
    "proxylessnas": {
        "sampler": BinaryGates(),
        "weight_sampler": SinglePath(uniform=False),
        "hypergradient": first_order,
        "alpha_optimizer": Adam(betas=(0.0, 0.999), weight_decay=0.0),
        "after_alpha_step": keep_unsampled,
    },
    # Liu et al. 2019, arXiv:1806.09055: gates softmax(a) (eq. 2); ξ = 0, or one virtual step with the momentum and
    # decay of the public code (eq. 6 to 8), ε = 0.01 / ‖∂L_valid/∂w'‖.
    "darts": {"sampler": Softmax(), "hypergradient": first_order},
    "darts-2nd": {
        "sampler": Softmax(),
        "hypergradient": Unrolled(momentum=True, weight_decay=True, epsilon=0.01, exact=False),
    },
    # Zela et al. 2020, arXiv:1909.09656: weight decay 27e-4, the third of its four; it stops when the mean eigenvalue
    # of five epochs ago is less than 0.75 of the present one (section 4.3).
    "r-darts": {
        "sampler": Softmax(),
        "hypergradient": first_order,
        "weight_optimizer": SGD(momentum=0.9, nesterov=True, weight_decay=27e-4),
        "early_stop": CurvatureStop(window=5, back=5, ratio=0.75),
    },
    # Xu et al. 2020, arXiv:1907.05737: a quarter of the channels (eq. 2), weights on edges (eq. 3).
    "pc-darts": {
        "sampler": Softmax(),
        "hypergradient": first_order,
        "supernet": {"partial": 4, "searched_edges": True},
    },
    # Chen et al. 2021, arXiv:2006.10355: gates drawn from a Dirichlet, λ · KL from the uniform one (eq. 6), λ = 1e-3.
    "drnas": {"sampler": Dirichlet(), "hypergradient": first_order, "penalties": (DirichletKL(weight=1e-3),)},
    # Xie et al. 2019, arXiv:1812.09926: gates by Gumbel-softmax (eq. 4), one level; τ from 5 to 0.1 is ours.
    "snas": {"sampler": GumbelSoftmax(), "learning": "joint", "tau": Linear(5.0, 0.1)},
    # Wang et al. 2020, arXiv:2011.11233: operations (eq. 2, 3) and two edges per node (eq. 7, 8) by Gumbel noise, the
    # mean of K = 7 gradients (eq. 11), τ as in GDAS.
    "rome": {
        "sampler": Topology(k=7),
        "hypergradient": first_order,
        "tau": Linear(10.0, 0.1),
        "supernet": {"searched_edges": True},
    },
    # Uniform paths for the weights (Li & Talwalkar 2019, arXiv:1902.07638); alphas that stay random.
    "random": {"sampler": SinglePath(uniform=True), "learning": "none"},
}


def test_every_part_of_every_method_is_in_the_table():
    assert PARTS.keys() == methods.METHODS.keys()
    assert {"sampler", *SHARED} == {f.name for f in fields(Method)}


@pytest.mark.parametrize("name", PARTS)
def test_a_method_has_the_parts_of_its_paper(name):
    method = methods.METHODS[name]()
    assert {f.name: getattr(method, f.name) for f in fields(Method)} == SHARED | PARTS[name]


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


@pytest.mark.parametrize("tau", [10.0, 1.0, 0.1])
def test_topology_learns_through_a_softmax_at_the_temperature(tau):
    """Written out: the gradient of ``softmax((log softmax(a) + g) / τ)``, of each of the K draws (eq. 7)."""
    alphas = Alphas({"op": 3, "node": 4}, init=0.5, generator=seeded(), keep={"node": 2}).double()
    generator = seeded(4)
    for subgraph in Topology(2)(alphas, tau=tau, generator=seeded(4)):
        noise_CO = gumbel_like(alphas.stack().detach(), generator)
        for noise_O, name in zip(noise_CO, alphas.names, strict=True):
            gate = subgraph[name].weights
            soft = ((alphas[name].log_softmax(-1) + noise_O[: len(gate)]) / tau).softmax(-1)
            toward = torch.randn_like(soft)
            given = torch.autograd.grad((gate * toward).sum(), alphas[name], retain_graph=True)
            wanted = torch.autograd.grad((soft * toward).sum(), alphas[name])
            torch.testing.assert_close(given, wanted, rtol=1e-9, atol=1e-12)


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
