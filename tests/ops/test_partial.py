"""PartialChannels and searched edges: what PC-DARTS asks of a super-net."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from msgdas import methods
from msgdas.alphas import Alphas
from msgdas.choice import MixedInput, MixedOp, all_choices, choices
from msgdas.derive import derive
from msgdas.discretize import discretize
from msgdas.errors import InputError
from msgdas.ops import PartialChannels
from msgdas.ops.partial import on_part
from msgdas.samplers import Fixed, Softmax
from msgdas.search.search import Search
from msgdas.search.selection import select_on_validation
from msgdas.spaces import find_space
from msgdas.spaces.darts import supernet
from msgdas.subgraph import select

TINY = {"channels": 4, "classes": 3, "image_size": 8}
PC = {"partial": 2, "searched_edges": True}


def conv(channels, stride=1):
    return nn.Conv2d(channels, channels, 3, stride, 1)


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_part_is_computed_the_rest_passes_and_all_is_shuffled(parts, stride):
    module = PartialChannels(conv(8 // parts, stride), parts, stride).double()
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64, requires_grad=True)
    size = 8 // parts
    rest = x[:, size:] if stride == 1 else F.max_pool2d(x[:, size:], 2)
    both = torch.cat([module.inner(x[:, :size]), rest], 1)
    wanted = torch.stack([both[:, part * size + i] for i in range(size) for part in range(parts)], 1)
    found = module(x)
    assert torch.equal(found, wanted)
    grad = torch.randn_like(found)
    (a,), (b,) = torch.autograd.grad(found, x, grad), torch.autograd.grad(wanted, x, grad)
    assert torch.allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("side", [1, 2, 5, 8])
def test_maps_are_halved_upwards(side):
    module = PartialChannels(conv(1, 2), 4, 2)
    assert module(torch.randn(2, 4, side, side)).shape == (2, 4, -(-side // 2), -(-side // 2))


def test_one_part_is_the_operation_itself():
    assert isinstance(on_part(conv, 8, 1), nn.Conv2d)
    assert on_part(conv, 8, 4).inner.in_channels == 2


@pytest.mark.parametrize(
    ("space", "partial"), [("nasbench201", 3), ("darts", 3), ("s2", 8), ("darts", 0), ("nasbench201", -1)]
)
def test_a_part_that_does_not_divide_is_one_line(space, partial):
    with pytest.raises(InputError, match=f"partial={partial} does not divide 4 channels") as error:
        find_space(space).supernet(**TINY, cells=3, partial=partial)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [8, 9, 28, 57])
def test_supernets_on_parts_run_at_any_size(size):
    net = supernet(**TINY | {"image_size": size}, cells=4, **PC)
    with select(net, Softmax()(Alphas.of(net))[0]):
        assert net(torch.randn(2, 3, size, size)).shape == (2, 3)


def test_every_edge_into_a_node_is_weighed():
    net = supernet(**TINY, cells=3, **PC)
    found = choices(net)
    nodes = [same[0] for same in found.values() if isinstance(same[0], MixedInput)]
    assert sorted(len(node.labels) for node in nodes) == sorted(2 * [2, 3, 4, 5])
    (subgraph,) = Softmax()(Alphas.of(net, init=1.0))
    weights = subgraph["normal/2"].weights
    assert weights.sum().item() == pytest.approx(1)
    node, states = nodes[0], [torch.randn(2, 4, 4, 4) for _ in range(2)]
    with select(net, subgraph):
        edges = [edge(x) for edge, x in zip(node.candidates, states, strict=True)]
        wanted = subgraph[node.name].weights[0] * edges[0] + subgraph[node.name].weights[1] * edges[1]
        torch.testing.assert_close(node(states), wanted)


def test_edges_are_not_searched_unless_asked():
    assert all(isinstance(same[0], MixedOp) for same in choices(supernet(**TINY, cells=3, partial=2)).values())


@pytest.mark.parametrize("space", ["darts", "s3"])
@pytest.mark.parametrize("seed", range(4))
def test_the_rule_is_that_of_pc_darts(space, seed):
    """Two inputs a node by softmax(beta) · the largest softmax(alpha) but none; told anew, edge by edge."""
    net = find_space(space).supernet(**TINY, cells=3, **PC)
    alphas = Alphas.of(net, init=1.0, generator=torch.Generator().manual_seed(seed))
    genotype = derive(net, alphas)
    assert genotype.space == space
    for kind in ("normal", "reduce"):
        for target, node in enumerate(genotype.cell(kind).nodes, 2):
            beta = alphas[f"{kind}/{target}"].softmax(-1).tolist()
            strength = {}
            for source in range(target):
                p = alphas[name := f"{kind}/{source}-{target}"].softmax(-1).tolist()
                pairs = zip(p, alphas.labels[name], strict=True)
                best, label = max(pair for pair in pairs if pair[1] != "none")
                strength[source] = (beta[source] * best, label)
            kept = sorted(strength, key=lambda s: -strength[s][0])[:2]
            assert {source: label for label, source in node} == {s: strength[s][1] for s in kept}


def test_weights_of_edges_decide_between_equal_operations():
    net = supernet(**TINY, cells=3, **PC)
    alphas = Alphas.of(net, init=0.0)
    with torch.no_grad():
        alphas["normal/5"][[1, 3]] += 1.0
    assert [source for _, source in derive(net, alphas).cell("normal").nodes[3]] == [1, 3]


def test_no_network_can_be_cut_out_of_it():
    net = supernet(**TINY, cells=3, **PC)
    genotype = derive(net, Alphas.of(net))
    with pytest.raises(InputError, match=r"PartialChannels .*space\.network"):
        discretize(net, genotype)
    edges_only = supernet(**TINY, cells=3, searched_edges=True)
    small, x = discretize(edges_only, genotype), torch.randn(4, 3, 8, 8)
    with select(edges_only, Fixed(genotype)(Alphas.of(edges_only))[0]):
        assert torch.equal(small(x), edges_only(x))


@pytest.mark.parametrize(
    ("space", "settings"),
    [("darts", PC), ("s1", PC), ("s4", PC), ("nasbench201", {"partial": 4}), ("darts", {"searched_edges": True})],
)
def test_a_search_takes_its_steps_and_its_find_is_evaluated(space, settings):
    found = find_space(space)
    net = found.supernet(**TINY, cells=3, **settings)
    assert any(isinstance(m, PartialChannels) for m in net.modules()) == ("partial" in settings)
    search = Search(net, methods.pc_darts(), steps=2)
    batch = torch.randn(6, 3, 8, 8), torch.arange(6) % 3
    before = {name: search.alphas[name].detach().clone() for name in search.alphas.names}
    for _ in range(2):
        search.step(batch, batch)
    assert all(not torch.equal(search.alphas[name], old) for name, old in before.items())
    ranked = select_on_validation(search, lambda: [batch], samples=2)
    assert all(0 <= one.accuracy <= 1 for one in ranked)
    assert found.network(ranked[0].genotype, **TINY, cells=3)(batch[0]).shape == (6, 3)


def test_choices_keep_their_names_and_places():
    whole, part = supernet(**TINY, cells=3), supernet(**TINY, cells=3, partial=4)
    assert {n: len(same) for n, same in all_choices(whole).items()} == {
        n: len(same) for n, same in all_choices(part).items()
    }
