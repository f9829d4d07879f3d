"""What each method's own parts compute, against their formulas, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.distributions import Dirichlet as Distribution
from torch.nn import functional as F
from torch.optim import SGD

from msgdas import methods
from msgdas.alphas import Alphas
from msgdas.choice import MixedInput, MixedOp
from msgdas.cost import candidate_macs, count
from msgdas.data import load_data
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.quiet import quiet
from msgdas.samplers import BinaryGates, Dirichlet, GumbelSoftmax, GumbelTopK, Softmax, Topology
from msgdas.samplers._relax import gumbel_like
from msgdas.search.early_stop import CurvatureStop, largest_eigenvalue
from msgdas.search.gradients import AlphaStep, added, first_order
from msgdas.search.loop import fit
from msgdas.search.penalties import DirichletKL, ExpectedCost, keep_unsampled
from msgdas.search.search import Search
from msgdas.search.unrolled import Unrolled
from msgdas.spaces import nasbench201, toy
from msgdas.subgraph import cut, select

X, Y = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double(), torch.tensor([0, 1, 2, 0])
X2, Y2 = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(9)).double(), torch.tensor([2, 1, 0, 1])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def net():
    return nasbench201.supernet(channels=2, cells=1, classes=3, image_size=8).double()


@pytest.fixture
def alphas(net):
    return Alphas.of(net, init=0.5, generator=seeded()).double()


def gradient(alphas):
    logits = [alphas[name] for name in alphas.names]
    grad = torch.cat([torch.zeros_like(p) if p.grad is None else p.grad for p in logits])
    alphas.zero_grad(set_to_none=True)
    return grad


def smooth():
    """A network without kinks, whose finite differences have no steps to fall over."""
    torch.manual_seed(1)
    choices = [
        MixedOp(
            f"c{i}",
            {"linear": nn.Linear(6, 6), "tanh": nn.Sequential(nn.Linear(6, 6), nn.Tanh()), "skip": nn.Identity()},
        )
        for i in range(3)
    ]
    return nn.Sequential(nn.Linear(3, 6), *choices, nn.Linear(6, 3)).double()


# DARTS of second order


class SecondOrder:
    """One alpha step on `smooth`, the weights with a history of momentum."""

    def __init__(self):
        self.net = smooth()
        self.alphas = Alphas.of(self.net, init=0.5, generator=seeded()).double()
        generator = seeded(3)
        self.train, self.valid = torch.randn(2, 16, 3, generator=generator).double()
        self.optimizer = SGD(self.net.parameters(), lr=0.1, momentum=0.9, weight_decay=3e-2)
        self.target = torch.randint(3, (16,), generator=generator)
        for _ in range(2):
            self.run(self.train, Softmax()(self.alphas)).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.alphas.zero_grad()

    def run(self, x, subgraphs):
        with select(self.net, subgraphs[0]):
            return self.objective(x)

    def objective(self, x):
        return F.cross_entropy(self.net(x), self.target)

    def by(self, hypergradient, sampler=None):
        draw = (sampler or Softmax())(self.alphas, generator=seeded(5))
        hypergradient(
            AlphaStep(
                self.net,
                self.alphas,
                draw,
                lambda: self.objective(self.valid),
                False,
                lambda: self.objective(self.train),
                self.optimizer,
            )
        )
        return gradient(self.alphas)


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("weight_decay", [False, True])
def test_unrolled_is_the_exact_double_backward(momentum, weight_decay):
    one = SecondOrder()
    exact = one.by(Unrolled(momentum, weight_decay, exact=True))
    given = one.by(Unrolled(momentum, weight_decay, epsilon=1e-4))
    torch.testing.assert_close(given, exact, rtol=1e-6, atol=1e-8)
    assert (exact - one.by(first_order)).abs().max() > 1e-3  # the second order matters here


@pytest.mark.parametrize("momentum", [False, True])
def test_the_exact_form_is_the_numerical_gradient_of_the_unrolled_loss(momentum):
    """No autograd at all: the validation loss after a real step, at alphas a little to either side."""
    one = SecondOrder()
    exact = one.by(Unrolled(momentum, weight_decay=True, exact=True))

    def unrolled_loss():
        twin = copy.deepcopy(one)
        twin.run(twin.train, Softmax()(twin.alphas)).backward()
        if not momentum:
            twin.optimizer.state.clear()
            twin.optimizer.param_groups[0]["momentum"] = 0.0
        twin.optimizer.step()
        return twin.run(twin.valid, Softmax()(twin.alphas)).item()

    numerical = []
    for p in (one.alphas[name] for name in one.alphas.names):
        for i in range(len(p)):
            values = []
            for way in (1e-5, -1e-5):
                with torch.no_grad():
                    p[i] += way
                values.append(unrolled_loss())
                with torch.no_grad():
                    p[i] -= way
            numerical.append((values[0] - values[1]) / 2e-5)
    torch.testing.assert_close(exact, torch.tensor(numerical).double(), rtol=1e-5, atol=1e-8)


def test_unrolled_leaves_weights_gradients_and_momentum_as_they_were():
    one = SecondOrder()
    before = copy.deepcopy(one.net.state_dict()), copy.deepcopy(one.optimizer.state_dict())
    one.by(Unrolled())
    one.by(Unrolled(), GumbelTopK(2))
    assert all(torch.equal(one.net.state_dict()[name], value) for name, value in before[0].items())
    assert all(p.grad is None for p in one.net.parameters())
    for i, state in before[1]["state"].items():
        assert torch.equal(one.optimizer.state_dict()["state"][i]["momentum_buffer"], state["momentum_buffer"])


def test_unrolled_says_what_it_needs():
    one = SecondOrder()
    with pytest.raises(InputError, match="Softmax"):
        one.by(Unrolled(exact=True), GumbelTopK(2))
    with pytest.raises(InputError, match="training batch"):
        Unrolled()(AlphaStep(one.net, one.alphas, Softmax()(one.alphas), lambda: one.objective(one.valid)))


# GDAS


@pytest.mark.parametrize("tau", [10.0, 1.0, 0.1])
def test_gdas_is_gumbel_top_1_draw_for_draw(net, alphas, tau):
    """Written out: ``h = softmax((log p + g) / τ)``, the largest runs, its output times ``hard − sg(h) + h``."""
    (draw,) = methods.gdas(net).sampler(alphas, tau=tau, generator=seeded(4))
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
        F.cross_entropy(_written_out(net, gates, "nothing")(X), Y).backward()
    torch.testing.assert_close(given, gradient(alphas), rtol=1e-9, atol=1e-12)


def test_added_gives_the_others_the_gradient_of_a_scalar_that_is_added(net, alphas):
    (draw,) = GumbelTopK(1)(alphas, tau=2.0, generator=seeded(4))
    with quiet(net):
        added(AlphaStep(net, alphas, [draw], lambda: F.cross_entropy(net(X), Y)))
        given = gradient(alphas)
        (draw,) = GumbelTopK(1)(alphas, tau=2.0, generator=seeded(4))
        F.cross_entropy(_written_out(net, {n: g.weights for n, g in draw.items()}, "scalar")(X), Y).backward()
    wanted = gradient(alphas)
    torch.testing.assert_close(given, wanted, rtol=1e-9, atol=1e-12)
    assert wanted.abs().max() > 1e-4


def _written_out(net, gates, others):
    """GDAS's mixed operation as its public code has it, in place of every choice."""

    class Sum(nn.Module):
        def __init__(self, choice):
            super().__init__()
            self.candidates, self.name = choice.candidates, choice.name

        def forward(self, x):
            gate = gates[self.name]
            i = int(gate.argmax())
            y = gate[i] * self.candidates[i](x)
            return y + gate[torch.arange(len(gate)) != i].sum() if others == "scalar" else y

    net = copy.deepcopy(net)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, MixedOp):
                setattr(parent, name, Sum(child))
    return net


# ProxylessNAS


@pytest.mark.parametrize("seed", range(3))
def test_binary_gates_are_the_two_path_formula(net, alphas, seed):
    """``∂L/∂a_i = Σ_{j in pair} ∂L/∂g_j · p_j (δ_ij − p_i)``, both paths of the pair run (section 3.2.1, eq. 4)."""
    (draw,) = BinaryGates()(alphas, generator=seeded(seed))
    binary = {n: g.weights.detach().clone().requires_grad_() for n, g in draw.items()}

    class Pair(nn.Module):
        def __init__(self, choice):
            super().__init__()
            self.candidates, self.name = choice.candidates, choice.name

        def forward(self, x):
            gate, (i,), (j,) = binary[self.name], draw[self.name].active, draw[self.name].probe
            return gate[i] * self.candidates[i](x) + gate[j] * self.candidates[j](x).detach()

    pairs = copy.deepcopy(net)
    for parent in list(pairs.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, MixedOp):
                setattr(parent, name, Pair(child))
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
    search = methods.proxylessnas(net, steps=20, alpha_lr=0.1)
    seen = []

    def watch(alphas, before, subgraphs):
        keep_unsampled(alphas, before, subgraphs)
        for name in alphas.names:
            sampled = subgraphs[0][name].active + subgraphs[0][name].probe
            others = [i for i in range(len(alphas[name])) if i not in sampled]
            torch.testing.assert_close(alphas[name].softmax(-1)[others], before[name].softmax(-1)[others])
            seen.append((alphas[name].softmax(-1) - before[name].softmax(-1))[list(sampled)].abs().max().item())

    search.after_alpha_step = watch
    data = toy.batches(answer, weight)
    for _ in range(20):
        search.step(next(data), next(data))
    assert max(seen) > 0.01


# SNAS, DrNAS, ROME


def test_snas_moves_weights_and_alphas_by_one_pass():
    torch.manual_seed(0)
    net, answer, weight = toy.problem(0)
    search = methods.snas(net, steps=2, alpha_lr=0.1, tau=1.0)
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


def test_joint_and_an_alpha_step_exclude_each_other():
    with pytest.raises(InputError, match="joint=True has no alpha step"):
        Search(toy.problem()[0], GumbelSoftmax(), hypergradient=first_order, joint=True)


def test_dirichlet_kl_is_its_closed_form():
    alphas = Alphas({"a": 3, "b": 4}, init=0.7, generator=seeded()).double()
    wanted = 0
    for name in alphas.names:
        beta = F.elu(alphas[name].detach()) + 1
        total, o = beta.sum(), len(beta)
        wanted = wanted + torch.lgamma(total) - torch.lgamma(beta).sum() - torch.lgamma(torch.tensor(float(o)).double())
        wanted = wanted + ((beta - 1) * (torch.digamma(beta) - torch.digamma(total))).sum()
    torch.testing.assert_close(DirichletKL(2.0)(alphas).item(), 2.0 * wanted.item(), rtol=1e-10, atol=0)


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


# penalties


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
    search = methods.METHODS[name](net, steps=120, alpha_lr=0.1, penalties=[ExpectedCost(costs, weight=50.0)])
    data = toy.batches(answer, weight)
    for _ in range(120):
        search.step(next(data), next(data))
    assert set(search.derive().decisions().values()) == {("none",)}


# R-DARTS


def test_the_largest_eigenvalue_is_the_hessians():
    net = smooth()
    search = methods.darts(net)
    search.alphas = Alphas.of(net, init=0.5, generator=seeded()).double()
    x, labels = torch.randn(16, 3).double(), torch.randint(3, (16,))

    def loss(flat):
        gates, at = {}, 0
        for name in search.alphas.names:
            gates[name] = flat[at : at + 3].softmax(-1)
            at += 3
        h = net[0](x)
        for i in range(3):
            h = sum(w * o(h) for w, o in zip(gates[f"c{i}"], net[i + 1].candidates, strict=True))
        return F.cross_entropy(net[4](h), labels)

    flat = torch.cat([search.alphas[name].detach() for name in search.alphas.names])
    wanted = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))[-1].item()
    assert largest_eigenvalue(search, (x, labels)) == pytest.approx(wanted, rel=1e-3)
    assert all(p.grad is None for p in [*net.parameters(), *search.alphas.parameters()])


@pytest.mark.parametrize(
    ("values", "epoch"),
    [([1, 1, 1, 1], None), ([1, 1], None), ([1, 1, 1, 2], 1), ([3, 2, 1, 1], None), ([1.0, 1.2, 1.3, 1.4], 1)],
)
def test_curvature_stop_goes_back_when_the_mean_has_grown(values, epoch):
    assert CurvatureStop(window=1, back=2, ratio=0.9).stops(values) == epoch
    assert CurvatureStop(window=1, back=1).stops([-1e-9, -1e-9]) is None


def test_curvature_stop_takes_means_over_its_window():
    rule = CurvatureStop(window=2, back=2, ratio=0.75)
    assert rule.stops([1, 1, 1, 1.4]) is None  # 1 / 1.2
    assert rule.stops([1, 1, 1.4, 1.4]) == 1  # 1 / 1.4


class StopAfterThree:
    """Ends at the third watched epoch, for the first."""

    def measure(self, search, batch):
        return 1.0

    def stops(self, values):
        return 0 if len(values) >= 3 else None


def test_an_early_stop_ends_the_search_and_goes_back():
    data = load_data("digits")
    net = nasbench201.supernet(channels=2, cells=1, classes=10, in_channels=1, image_size=8)
    search = methods.darts(net, warmup=0.2, early_stop=StopAfterThree(), alpha_lr=0.3)
    records = []
    found = fit(search, data, epochs=10, images=128, on_epoch=records.append)
    assert len(records) == 5
    assert [r.get("early_stop") for r in records] == [None, None, 1.0, 1.0, 1.0]
    assert str(found) == records[2]["genotype"]


def test_cut_takes_the_samplers_probes(alphas):
    (draw,) = BinaryGates()(alphas, generator=seeded())
    (leaf,), _ = cut([draw])
    assert all(leaf[name].probe == draw[name].probe for name in alphas.names)
