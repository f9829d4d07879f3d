"""All candidates at once: the fast sum is the plain one, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from reference import alphas_of, searching, seeded, smooth
from torch import nn
from torch.nn import functional as F

from msgdas.alphas import Alphas
from msgdas.choice import Choice, MixedOp, total
from msgdas.errors import InputError
from msgdas.fast import weighted
from msgdas.fast.native import native, use_native
from msgdas.fast.sums import plus
from msgdas.fast.weighted import sharing
from msgdas.methods import darts as darts_of
from msgdas.methods import darts_2nd
from msgdas.ops import AvgPool3x3, DropBlockIdentity, Zero, relu_conv_bn
from msgdas.ops.statistics import quiet
from msgdas.samplers import Softmax
from msgdas.search.execution import Execution
from msgdas.search.unrolled import Unrolled
from msgdas.spaces import darts, nasbench201
from msgdas.subgraph import Gate, SubGraph, cut, select

SPACES = {
    "nasbench201": lambda: nasbench201.supernet(channels=4, cells=2, classes=3, image_size=8),
    "darts": lambda: darts.supernet(channels=4, cells=3, classes=3, image_size=16),
    "darts, edges searched": lambda: darts.supernet(
        channels=4, cells=3, classes=3, image_size=8, partial=2, searched_edges=True
    ),
}


either = pytest.mark.parametrize("kernels", [False, True], indirect=True, ids=["PyTorch's", "compiled"])


def plainly(choice, inputs, gate):
    return total([gate.weights[i] * choice.candidates[i](inputs[i]) for i in gate.active])


def trace(net, subgraph, x, labels):
    """Logits, every gradient and every buffer after a step."""
    (leaf,), _ = cut([subgraph])
    if native():
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    with select(net, leaf):
        logits = net(x)
        F.cross_entropy(logits, labels).backward()
    gates = {f"gate {name}": gate.weights.grad for name, gate in leaf.items()}
    weights = {name: p.grad for name, p in net.named_parameters()}
    return {"logits": logits} | gates | weights | dict(net.named_buffers())


def both(net, subgraph, x, labels, monkeypatch):
    """The traces of the fast and of the plain sum, from the same random state."""
    twin, state = copy.deepcopy(net), torch.get_rng_state()
    fast = trace(net, subgraph, x, labels)
    torch.set_rng_state(state)
    use_native(False)
    monkeypatch.setattr(Choice, "_weighted", plainly)
    return fast, trace(twin, subgraph, x, labels)


def batch(size=16):
    return torch.randn(4, 3, size, size, generator=seeded()).double(), torch.tensor([0, 1, 2, 0])


def assert_same(fast, plain, tolerance=1e-12):
    assert fast.keys() == plain.keys()
    for name, value in plain.items():
        assert (value is None) == (fast[name] is None), name
        if value is not None:
            torch.testing.assert_close(fast[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: n + m)


@either
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_gradients_and_statistics_are_those_of_the_plain_sum(space, layout, monkeypatch, kernels):
    torch.manual_seed(0)
    net = SPACES[space]().double().to(memory_format=layout)
    (subgraph,) = Softmax()(alphas_of(net))
    x, labels = batch(8 if "searched" in space else 16)
    fast, plain = both(net, subgraph, x.contiguous(memory_format=layout), labels, monkeypatch)
    assert_same(fast, plain)
    assert all(fast[f"gate {name}"].abs().max() > 1e-6 for name in subgraph)


@either
@pytest.mark.parametrize("space", ["nasbench201", "darts"])
def test_the_same_where_the_network_is_quiet_and_drops(space, monkeypatch, kernels):
    net = SPACES[space]().double()
    for module in net.modules():
        if isinstance(module, DropBlockIdentity):
            module.p = 0.3
    (subgraph,) = Softmax()(alphas_of(net))
    with quiet(net, drop=True):
        fast, plain = both(net, subgraph, *batch(), monkeypatch)
    assert_same(fast, plain)
    assert not any(value.any() for name, value in fast.items() if "num_batches" in name)


@either
def test_the_same_in_evaluation(monkeypatch, kernels):
    net = SPACES["darts"]().double().eval()
    (subgraph,) = Softmax()(alphas_of(net))
    assert_same(*both(net, subgraph, *batch(), monkeypatch))


@either
def test_the_same_in_single_precision(monkeypatch, kernels):
    """In channels_last, where PyTorch misreads an expanded weight of a BatchNorm."""
    torch.manual_seed(0)
    net = SPACES["nasbench201"]().to(memory_format=torch.channels_last)
    (subgraph,) = Softmax()(alphas_of(net).float())
    x, labels = batch()
    x = x.float().contiguous(memory_format=torch.channels_last)
    assert_same(*both(net, subgraph, x, labels, monkeypatch), tolerance=1e-4)


class _Odd(nn.Module):
    """Returns one number per image, of another shape than its neighbours' outputs."""

    def forward(self, x):
        return x.mean((1, 2, 3), keepdim=True).tanh()


@either
@pytest.mark.parametrize(
    "candidates",
    [
        lambda: [relu_conv_bn(3, 3, 3), nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.BatchNorm2d(3))],  # affine
        lambda: [_Odd(), relu_conv_bn(3, 3, 1, affine=False), nn.Tanh(), Zero()],
        lambda: [nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, momentum=None)), nn.AvgPool2d(3, 1, 1)],
        lambda: [
            nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.BatchNorm2d(3, affine=False, track_running_stats=False)),
            nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.BatchNorm2d(3, affine=False, momentum=0.3)),
            nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.BatchNorm2d(3, affine=False)),
        ],
        lambda: [nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)), Zero()],
        lambda: [Zero(), Zero()],
    ],
)
def test_candidates_of_any_kind_are_weighed(candidates, monkeypatch, kernels):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.Identity(), MixedOp("c", candidates()), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    weights = torch.rand(len(net[2].candidates), generator=seeded()).double()
    subgraph = SubGraph({"c": Gate(tuple(range(len(weights))), weights)})
    with sharing():
        fast, plain = both(net.double(), subgraph, *batch(8), monkeypatch)
    assert_same(fast, plain)


@either
def test_what_watches_a_candidate_sees_it_called(monkeypatch, kernels):
    net = SPACES["nasbench201"]().double()
    seen = []
    for choice in (m for m in net.modules() if isinstance(m, MixedOp)):
        choice.candidates[3].register_forward_hook(lambda *_: seen.append("candidate"))
        choice.candidates[2][-1].register_forward_hook(lambda *_: seen.append("norm"))
        choice.candidates[4].register_forward_hook(lambda *_: seen.append("pool"))
    (subgraph,) = Softmax()(alphas_of(net))
    fast, plain = both(net, subgraph, *batch(), monkeypatch)
    assert_same(fast, plain)
    assert len(seen) == 2 * 3 * 24  # two networks, of four cells of six choices


def test_a_cell_computes_what_its_edges_share_once(monkeypatch):
    net, called = SPACES["nasbench201"]().double(), []
    monkeypatch.setattr(F, "relu", lambda x, inplace=False, relu=F.relu: called.append("relu") or relu(x))
    monkeypatch.setattr(AvgPool3x3, "forward", lambda s, x, of=AvgPool3x3.forward: called.append("pool") or of(s, x))
    (subgraph,) = Softmax()(alphas_of(net))
    cell = next(m for m in net.modules() if isinstance(m, nasbench201.Cell))
    with select(net, subgraph), torch.no_grad():
        cell(torch.randn(2, 4, 8, 8).double())
    assert sorted(called) == ["pool"] * 3 + ["relu"] * 3  # states, of six edges


# ------------------------------------------------------------------- single paths


def one_path(net, i):
    """The path of candidate i of every choice, its gates as a sampler makes them."""
    alphas = alphas_of(net)
    soft = alphas.probabilities()
    gates = {}
    for name, p in soft.items():
        hard = F.one_hot(torch.tensor(i % len(p)), len(p)).to(p)
        gates[name] = Gate((i % len(p),), hard + (p - p.detach()))
    return SubGraph(gates)


@either
@pytest.mark.parametrize("space", ["nasbench201", "darts"])
@pytest.mark.parametrize("i", range(8))
@pytest.mark.parametrize("affine", [False, True])
def test_the_gate_of_a_path_has_the_gradient_of_the_plain_product(space, i, affine, monkeypatch, kernels):
    """Where a BatchNorm takes it in, and where nothing can."""
    torch.manual_seed(0)
    net = SPACES[space]().double()
    for norm in (m for m in net.modules() if affine and isinstance(m, nn.BatchNorm2d) and m.weight is None):
        norm.weight, norm.bias = (nn.Parameter(torch.randn(norm.num_features).double()) for _ in range(2))
    x, labels = batch()
    twin, subgraph = copy.deepcopy(net), one_path(net, i)
    fast = trace(net, subgraph, x, labels)
    use_native(False)
    monkeypatch.setattr(
        Choice, "mix", lambda choice, inputs: plainly(choice, inputs, choice.gate or everything(choice))
    )
    assert_same(fast, trace(twin, subgraph, x, labels))


def everything(choice):
    return Gate(tuple(range(len(choice.labels))), torch.ones(len(choice.labels)).double())


def test_a_cell_of_a_path_computes_what_its_edges_share_once(monkeypatch):
    net, called = SPACES["nasbench201"]().double(), []
    monkeypatch.setattr(F, "relu", lambda x, inplace=False, relu=F.relu: called.append("relu") or relu(x))
    cell = next(m for m in net.modules() if isinstance(m, nasbench201.Cell))
    with select(net, one_path(net, 2)), torch.no_grad():
        cell(torch.randn(2, 4, 8, 8).double())
    assert len(called) == 3  # states, of six edges


def test_a_mixture_begins_with_a_candidate_that_takes_its_weight_in(monkeypatch):
    """`plus` of nothing and a weighted map goes through memory for a product alone."""
    begins = []
    monkeypatch.setattr(
        weighted, "plus", lambda total, y, weight=None: begins.append((total, weight)) or plus(total, y, weight)
    )
    net = nasbench201.supernet(channels=4, cells=1, image_size=8)
    (subgraph,) = Softmax()(Alphas.of(net))
    with select(net, subgraph):
        net(torch.randn(2, 3, 8, 8))
    assert len(begins) == 2 * 6 * 4  # cells, edges, candidates that are not none
    assert all(weight is None for total, weight in begins if total is None)


def test_a_sum_leaves_its_terms_alone():
    terms = [torch.randn(2, 3) for _ in range(3)]
    before = [term.clone() for term in terms]
    assert torch.equal(total(terms), before[0] + before[1] + before[2])
    assert all(torch.equal(*pair) for pair in zip(terms, before, strict=True))


# ----------------------------------------------------------------- recomputation


def recompute_in(net, recompute=True):
    for module in net.modules():
        if isinstance(module, MixedOp):
            module.recompute = recompute


@either
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("drop", [0.0, 0.4])
def test_recomputation_changes_nothing(space, drop, kernels):
    """Running statistics are updated once, and DropBlock draws the same masks again."""
    torch.manual_seed(0)
    net = SPACES[space]().double()
    for module in net.modules():
        if isinstance(module, DropBlockIdentity):
            module.p = drop
    (subgraph,) = Softmax()(alphas_of(net))
    x, labels = batch(8 if "searched" in space else 16)
    twin, state = copy.deepcopy(net), torch.get_rng_state()
    kept = trace(twin, subgraph, x, labels)
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    recompute_in(net)
    assert_same(trace(net, subgraph, x, labels), kept)
    assert torch.equal(torch.get_rng_state(), after)


@either
@pytest.mark.parametrize("method", [darts_of, darts_2nd])
def test_a_search_that_recomputes_is_the_same_search(method, kernels):
    x, labels = batch(8)
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        net = SPACES["nasbench201"]().double()
        settings = {"warmup": 0.0, "drop": 0.3, "drop_in_alpha_steps": True, "steps": 3}
        search = searching(net, method(), recompute=recompute, **settings)
        for _ in range(3):
            search.step((x, labels), (x.flip(0), labels.flip(0)))
        found.append(dict(net.state_dict()) | {f"alpha {n}": p for n, p in search.alphas.logits.items()})
    assert_same(found[1], found[0], 1e-6 if method is darts_2nd else 1e-9)


def test_recomputation_keeps_less():
    kept = []
    for recompute in (False, True):
        net, sizes = SPACES["darts"](), {}
        recompute_in(net, recompute)
        (subgraph,) = Softmax()(alphas_of(net).float())
        pack = torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: (sizes.update({t.data_ptr(): t.nbytes}), t)[1], lambda t: t
        )
        with select(net, subgraph), pack:
            net(batch()[0].float())
        kept.append(sum(sizes.values()))
    assert kept[1] < 0.5 * kept[0]


def test_recomputation_and_running_together_exclude_each_other():
    with pytest.raises(InputError, match="leave one out"):
        Execution(recompute=True, parallel=True)
    net = smooth()
    search = searching(net, darts_of(), recompute=True, hypergradient=Unrolled(exact=True))
    x, labels = torch.randn(4, 3).double(), torch.tensor([0, 1, 2, 0])
    with pytest.raises(InputError, match="exact=True cannot recompute"):
        search.step((x, labels), (x, labels))
