"""What is special about sums: candidates of any kind, hooks, shared work, recomputation. The law is in test_law.py."""

from __future__ import annotations

import copy
import weakref

import pytest
import torch
from reference import alphas_of, searching, seeded, smooth
from torch import nn
from torch.nn import functional as F

from msgdas.alphas import Alphas
from msgdas.choice import MixedOp
from msgdas.errors import InputError
from msgdas.fast import combine, speed_up
from msgdas.fast.combine import _total, sharing
from msgdas.fast.native import native, use_native
from msgdas.fast.pool import AvgPool3x3
from msgdas.fast.sums import plus
from msgdas.methods import darts as darts_of
from msgdas.methods import darts_2nd
from msgdas.ops import DropBlockIdentity, Zero, relu_conv_bn
from msgdas.samplers import Softmax
from msgdas.search.execution import Execution
from msgdas.search.unrolled import Unrolled
from msgdas.spaces import darts, nasbench201
from msgdas.subgraph import Gate, SubGraph, cut
from msgdas.supernet import select

SPACES = {
    "nasbench201": lambda: nasbench201.supernet(channels=4, cells=2, classes=3, image_size=8),
    "darts": lambda: darts.supernet(channels=4, cells=3, classes=3, image_size=16),
    "darts, edges searched": lambda: darts.supernet(
        channels=4, cells=3, classes=3, image_size=8, partial=2, searched_edges=True
    ),
}


either = pytest.mark.parametrize("kernels", [False, True], indirect=True, ids=["PyTorch's", "compiled"])


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


def both(net, subgraph, x, labels):
    """The traces of the network sped up and of the plain one, from the same random state."""
    plain, state = copy.deepcopy(net), torch.get_rng_state()
    undo = speed_up(net)
    fast = trace(net, subgraph, x, labels)
    undo()
    torch.set_rng_state(state)
    use_native(False)
    return fast, trace(plain, subgraph, x, labels)


def batch(size=16):
    return torch.randn(4, 3, size, size, generator=seeded()).double(), torch.tensor([0, 1, 2, 0])


def assert_same(fast, plain, tolerance=1e-12):
    assert fast.keys() == plain.keys()
    for name, value in plain.items():
        assert (value is None) == (fast[name] is None), name
        if value is not None:
            torch.testing.assert_close(fast[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("space", SPACES)
def test_the_same_where_maps_are_contiguous(space):
    torch.manual_seed(0)
    net = SPACES[space]().double()
    (subgraph,) = Softmax()(alphas_of(net))
    assert_same(*both(net, subgraph, *batch(8 if "searched" in space else 16)))


@either
def test_the_same_in_single_precision(kernels):
    """In channels_last, where PyTorch misreads an expanded weight of a BatchNorm."""
    torch.manual_seed(0)
    net = SPACES["nasbench201"]().to(memory_format=torch.channels_last)
    (subgraph,) = Softmax()(alphas_of(net).float())
    x, labels = batch()
    x = x.float().contiguous(memory_format=torch.channels_last)
    assert_same(*both(net, subgraph, x, labels), tolerance=1e-4)


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
def test_candidates_of_any_kind_are_weighed(candidates, kernels):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.Identity(), MixedOp("c", candidates()), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    weights = torch.rand(len(net[2].candidates), generator=seeded()).double()
    subgraph = SubGraph({"c": Gate(tuple(range(len(weights))), weights)})
    with sharing():
        fast, plain = both(net.double(), subgraph, *batch(8))
    assert_same(fast, plain)


@either
def test_what_watches_a_candidate_sees_it_called(kernels):
    net = SPACES["nasbench201"]().double()
    seen = []
    for choice in (m for m in net.modules() if isinstance(m, MixedOp)):
        choice.candidates[0].register_forward_hook(lambda *_: seen.append("none"))
        choice.candidates[3].register_forward_hook(lambda *_: seen.append("candidate"))
        choice.candidates[2][-1].register_forward_hook(lambda *_: seen.append("norm"))
        choice.candidates[4].register_forward_hook(lambda *_: seen.append("pool"))
    (subgraph,) = Softmax()(alphas_of(net))
    fast, plain = both(net, subgraph, *batch())
    assert_same(fast, plain)
    assert len(seen) == 2 * 4 * 24  # two networks, of four cells of six choices


def test_a_cell_computes_what_its_edges_share_once(monkeypatch):
    net, called = SPACES["nasbench201"]().double(), []
    speed_up(net)
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
def test_a_batch_norm_with_weights_of_its_own_takes_the_gate_in(space, i, kernels):
    torch.manual_seed(0)
    net = SPACES[space]().double()
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d) and m.weight is None):
        norm.weight, norm.bias = (nn.Parameter(torch.randn(norm.num_features).double()) for _ in range(2))
    x, labels = batch()
    assert_same(*both(net, one_path(net, i), x, labels))


def test_a_cell_of_a_path_computes_what_its_edges_share_once(monkeypatch):
    net, called = SPACES["nasbench201"]().double(), []
    speed_up(net)
    monkeypatch.setattr(F, "relu", lambda x, inplace=False, relu=F.relu: called.append("relu") or relu(x))
    cell = next(m for m in net.modules() if isinstance(m, nasbench201.Cell))
    with select(net, one_path(net, 2)), torch.no_grad():
        cell(torch.randn(2, 4, 8, 8).double())
    assert len(called) == 3  # states, of six edges


def test_a_mixture_begins_with_a_candidate_that_takes_its_weight_in(monkeypatch):
    """`plus` of nothing and a weighted map goes through memory for a product alone."""
    begins = []
    monkeypatch.setattr(
        combine, "plus", lambda total, y, weight=None: begins.append((total, weight)) or plus(total, y, weight)
    )
    net = nasbench201.supernet(channels=4, cells=1, image_size=8)
    speed_up(net)
    (subgraph,) = Softmax()(Alphas.of(net))
    with select(net, subgraph):
        net(torch.randn(2, 3, 8, 8))
    assert len(begins) == 2 * (6 * 4 + 1)  # cells; edges × candidates that are not none, and the third edge of a node
    assert all(weight is None for total, weight in begins if total is None)


def test_a_sum_leaves_its_terms_alone():
    terms = [torch.randn(2, 3) for _ in range(3)]
    before = [term.clone() for term in terms]
    assert torch.equal(_total(terms), before[0] + before[1] + before[2])
    assert all(torch.equal(*pair) for pair in zip(terms, before, strict=True))


# ----------------------------------------------------------------- recomputation


CELLS = nasbench201.Cell, darts.CellModule


def recompute_in(net, recompute=True, kinds=(MixedOp,)):
    for module in net.modules():
        if isinstance(module, kinds):
            module.recompute = recompute


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("drop", [0.0, 0.4])
@pytest.mark.parametrize("kinds", [(MixedOp,), (MixedOp, *CELLS)], ids=["choices", "cells too"])
@pytest.mark.parametrize(("fast", "kernels"), [(False, False), (True, False), (True, True)], indirect=["kernels"])
def test_recomputation_changes_nothing(space, drop, kinds, fast, kernels):
    """Running statistics are updated once, and DropBlock draws the same masks again."""
    torch.manual_seed(0)
    net = SPACES[space]().double()
    for module in net.modules():
        if isinstance(module, DropBlockIdentity):
            module.p = drop
    (subgraph,) = Softmax()(alphas_of(net))
    x, labels = batch(8 if "searched" in space else 16)
    if fast:
        speed_up(net)
    twin, state = copy.deepcopy(net), torch.get_rng_state()
    kept = trace(twin, subgraph, x, labels)
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    recompute_in(net, kinds=kinds)
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


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("space", ["nasbench201", "darts"])
def test_a_recomputed_cell_keeps_its_inputs_alone(space, fast):
    net, seen = SPACES[space](), []
    if fast:
        speed_up(net)
    for module in net.modules():
        if isinstance(module, MixedOp):
            module.register_forward_pre_hook(lambda _, args: seen.append(weakref.ref(args[0])))
        if isinstance(module, CELLS):
            module.register_forward_hook(lambda _, args, y: inputs.update(map(id, (*args, y))))
    with torch.no_grad():
        (subgraph,) = Softmax()(alphas_of(net).float())
    for kinds, inside in (((MixedOp,), True), ((MixedOp, *CELLS), False)):
        inputs = set()
        seen.clear()
        recompute_in(net, False, (MixedOp, *CELLS))
        recompute_in(net, True, kinds)
        with select(net, subgraph):
            logits = net(batch()[0].float())
            alive = [x() for x in seen if x() is not None]
            assert any(id(x) not in inputs for x in alive) == inside
            del alive
            logits.sum().backward()


def test_recomputation_and_running_together_exclude_each_other():
    with pytest.raises(InputError, match="leave one out"):
        Execution(recompute=True, parallel=True)
    net = smooth()
    search = searching(net, darts_of(), recompute=True, hypergradient=Unrolled(exact=True))
    x, labels = torch.randn(4, 3).double(), torch.tensor([0, 1, 2, 0])
    with pytest.raises(InputError, match="exact=True cannot recompute"):
        search.step((x, labels), (x, labels))
