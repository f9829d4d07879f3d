"""The DARTS space: published cells, exact costs, images of any size, and the genotypes its rule derives."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from msgdas.alphas import Alphas
from msgdas.choice import MixedInput, MixedOp
from msgdas.cost import count
from msgdas.derive import derive
from msgdas.discretize import discretize
from msgdas.errors import InputError
from msgdas.genotype import Cell, Genotype
from msgdas.ops import FactorizedReduce
from msgdas.ops.named import OPERATIONS
from msgdas.samplers import Fixed, GumbelTopK, Softmax
from msgdas.spaces.darts import CANDIDATES, from_string, graphs, network, plan, supernet, to_string
from msgdas.spaces.darts_text import PUBLISHED
from msgdas.supernet import all_choices, select

V2 = PUBLISHED["DARTS_V2"].text


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cells_come_back_from_text_and_json_and_make_a_network(name):
    genotype = from_string(name)
    assert to_string(genotype) == PUBLISHED[name].text
    assert from_string(to_string(genotype)) == genotype
    assert Genotype.from_dict(genotype.to_dict()) == genotype
    assert "arXiv:" in PUBLISHED[name].source
    small = network(genotype, channels=4, cells=3, classes=7)
    assert small(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert [len(graph.edges) for graph in graphs(genotype)] == [
        2 * len(cell.nodes) + len(cell.concat) for _, cell in genotype.cells
    ]


# Counted on the networks of github.com/quark0/darts, auxiliary head left out
@pytest.mark.parametrize(
    ("name", "size", "params", "macs"),
    [
        ("DARTS_V2", {}, 3_349_342, 528_359_040),
        ("DARTS_V2", {"channels": 48, "cells": 14, "classes": 1000, "image_size": 224}, 4_718_752, 529_911_552),
        ("DARTS_V1", {}, 3_169_414, 500_987_520),
        ("NASNet", {}, 3_830_950, 603_452_448),
        ("AmoebaNet", {}, 3_145_078, 488_931_552),
    ],
)
def test_costs_are_those_of_the_official_networks(name, size, params, macs):
    cost = count(network(from_string(name), **size), 3, size.get("image_size", 32))
    assert (cost.params, cost.macs) == (params, macs)


def test_the_auxiliary_head_works_in_training_only_and_is_not_in_the_cost():
    kwargs = {"channels": 4, "cells": 4, "classes": 5}
    with_head = network(from_string("DARTS_V1"), auxiliary=True, **kwargs)
    x = torch.randn(3, 3, 32, 32)
    logits, auxiliary = with_head.train()(x)
    assert logits.shape == auxiliary.shape == (3, 5)
    assert with_head.eval()(x).shape == (3, 5)
    with_head.auxiliary = None
    plain = network(from_string("DARTS_V1"), **kwargs)
    assert plain.load_state_dict(with_head.state_dict())
    assert torch.equal(plain.eval()(x), with_head(x))


@pytest.mark.parametrize(
    "text",
    [
        "Genotype(normal=[(('sep_conv_3x3', 0), ('skip_connect', 1))], normal_concat=range(2, 3), "
        "reduce=((('max_pool_3x3', 0), ('none', 1)),), reduce_concat=(2,))",
        "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1)], normal_concat=[2], "
        "reduce=[['max_pool_3x3', 0], ['none', 1]], reduce_concat=[2])",
    ],
)
def test_other_ways_to_write_it_are_read(text):
    genotype = from_string(text)
    assert genotype.cell("normal") == Cell(((("sep_conv_3x3", 0), ("skip_connect", 1)),), (2,))
    assert genotype.cell("reduce") == Cell(((("max_pool_3x3", 0), ("none", 1)),), (2,))
    assert genotype.share("skip_connect") == 0.25


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not known: use NASNet"),
        ("DARTS_V3", "is not known: use NASNet"),
        ("Genotype(", "not a genotype of space darts"),
        ("Genotype()", "not a genotype of space darts"),
        ("Genotype(1)", "not a genotype of space darts"),
        ("Genotype(__import__('os'))", "not a genotype of space darts"),
        (V2.replace("normal_concat=[2, 3, 4, 5]", "normal_concat=range(10**9)"), "not a genotype of space darts"),
        (V2.replace("[2, 3, 4, 5]", "[2, 3, 4, 9]"), "concat"),
        (V2.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', 5)"), "use one or more inputs from 0 to 4"),
        (V2.replace(", ('dil_conv_3x3', 2)]", "]"), "every node takes two"),
        (V2.replace("dil_conv_3x3", "dil_conv_9x9"), "darts needs two of none"),
        (V2.replace("reduce=", "other="), "not a genotype of space darts"),
        ("Genotype(normal=[()],normal_concat=[2],reduce=[],reduce_concat=[])", "not a genotype of space darts"),
        (V2.replace("('skip_connect', 0)", "('skip_connect', 1e999)"), "not a genotype of space darts"),
        (V2.replace("('skip_connect', 0)", "('skip_connect', 0.5)"), "not a genotype of space darts"),
        (V2.replace("[2, 3, 4, 5]", "[2.0, 3, 4, 5]"), "not a genotype of space darts"),
        (V2.replace("[2, 3, 4, 5]", "[2, 3, 4, 4]"), "each once"),
        (V2.replace("[2, 3, 4, 5]", f"[{'(' * 90_000}"), "use at most 20,000 characters"),
        (V2.replace("[2, 3, 4, 5]", f"[{'-' * 9000}1]"), "not a genotype of space darts"),
        (V2.replace("'skip_connect'", r"'skip\connect'"), "skip"),
        (V2.replace("[2, 3, 4, 5]", "[1, 3, 4, 5]"), "concatenates .* from 2 to 5"),
        ("Genotype(" + 20_000 * "(", r"… \(20,009 characters\)"),
    ],
)
def test_a_wrong_text_is_one_line(text, why):
    with pytest.raises(InputError, match=why) as error:
        from_string(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    "cells",
    [
        [],
        {"normal": 1},
        {"normal": {"nodes": [], "concat": []}},
        {"normal": {"nodes": [[["skip_connect", 2]]], "concat": [2]}},
        {"normal": {"nodes": [[["skip_connect", "0"]]], "concat": [2]}},
        {"normal": {"nodes": [[["skip_connect", True]]], "concat": [2]}},
        {"normal": {"nodes": [[["skip_connect", 0]]]}},
    ],
)
def test_damaged_cells_are_one_line(cells):
    with pytest.raises(InputError, match='"cells" must map') as error:
        Genotype.from_dict({"space": "darts", "cells": cells})
    assert "\n" not in str(error.value)


def test_a_genotype_of_another_space_has_no_network():
    with pytest.raises(InputError, match="no 'normal' cell"):
        network(Genotype("nasbench201", {"cell/0-1": "none"}))


# ------------------------------------------------------------------- any images


@pytest.mark.parametrize(
    ("size", "form", "stem", "last"),
    [
        (8, None, (1,), 4),
        (28, None, (1,), 7),
        (32, None, (1,), 8),
        (48, None, (1,), 12),
        (64, None, (2, 1, 1), 8),
        (96, None, (2, 1, 1), 12),
        (128, None, (2, 2, 1), 8),
        (224, None, (2, 2, 2), 7),
        (32, "imagenet", (1, 1, 1), 8),
        (64, "cifar", (1,), 16),
    ],
)
def test_networks_fit_their_images(size, form, stem, last):
    found = plan(size, 6, form)
    assert (found.stem, found.last_map) == (stem, last)
    assert found.reductions == ((2, 4) if size >= 16 else (3,))


@pytest.mark.parametrize("size", [8, 9, 15, 17, 28, 31, 45, 57, 75])
def test_odd_sizes_run_in_search_and_in_evaluation(size):
    x = torch.randn(2, 1, size, size)
    net = supernet(channels=2, cells=4, classes=3, in_channels=1, image_size=size)
    (subgraph,) = GumbelTopK(1)(Alphas.of(net))
    with select(net, subgraph):
        assert net(x).shape == (2, 3)
    genotype = from_string("DARTS_V2")
    logits, auxiliary = network(
        genotype, channels=2, cells=4, classes=3, in_channels=1, image_size=size, auxiliary=True
    ).train()(x)
    assert logits.shape == auxiliary.shape == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"image_size": 7}, "image size 7: darts needs 8"),
        ({"cells": 2}, "cells=2: darts needs 3"),
        ({"channels": 5}, "channels=5: darts needs an even number"),
        ({"form": "mnist"}, "form 'mnist': use cifar or imagenet"),
    ],
)
def test_what_it_cannot_be_is_one_line(arguments, line):
    with pytest.raises(InputError, match=line):
        supernet(**({"channels": 4, "cells": 3} | arguments))


# ------------------------------------------------------------------------ search


def test_the_supernet_has_two_kinds_of_cells_that_share_their_choices():
    net = supernet(channels=4, cells=5)
    places = all_choices(net)
    edges = [name for name, (first, *_) in places.items() if isinstance(first, MixedOp)]
    nodes = [name for name, (first, *_) in places.items() if isinstance(first, MixedInput)]
    assert len(edges) == 2 * 14
    assert sorted(nodes) == sorted(f"{kind}/{i}" for kind in ("normal", "reduce") for i in range(2, 6))
    assert {len(places[name]) for name in edges if name.startswith("normal")} == {3}
    assert {len(places[name]) for name in edges if name.startswith("reduce")} == {2}
    assert all(places[name][0].labels == CANDIDATES for name in edges)
    assert len(Alphas.of(net)) == 28


@pytest.mark.parametrize("seed", range(4))
def test_the_rule_is_that_of_the_paper(seed):
    """Two inputs a node, by their strongest operation but none in a softmax with none; told anew, edge by edge."""
    net = supernet(channels=2, cells=3)
    alphas = Alphas.of(net, init=1.0, generator=torch.Generator().manual_seed(seed))
    genotype = derive(net, alphas)
    for kind in ("normal", "reduce"):
        for target, node in enumerate(genotype.cell(kind).nodes, 2):
            strength = {}
            for source in range(target):
                p = alphas[f"{kind}/{source}-{target}"].softmax(-1).tolist()
                strength[source] = max((p[i], CANDIDATES[i]) for i in range(1, 8))
            best = sorted(strength, key=lambda s: -strength[s][0])[:2]
            assert {source: label for label, source in node} == {s: strength[s][1] for s in best}
    assert genotype.cell("normal").concat == (2, 3, 4, 5)
    assert from_string(str(genotype)) == genotype


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_derived_cells_compute_what_the_supernet_does_bit_for_bit(seed, mode):
    net = supernet(channels=4, cells=4, classes=3, image_size=8)
    alphas = Alphas.of(net, init=1.0, generator=torch.Generator().manual_seed(seed))
    genotype = derive(net, alphas)
    (subgraph,) = Fixed(genotype)(alphas)
    small, x = discretize(net, genotype), torch.randn(4, 3, 8, 8)
    with select(net.train(mode), subgraph):
        wanted = net(x)
    assert torch.equal(small.train(mode)(x), wanted)
    assert not all_choices(small)


def test_all_paths_at_once_are_the_weighted_sum():
    net = supernet(channels=2, cells=3, classes=3, image_size=8).double().eval()
    alphas = Alphas.of(net, init=1.0).double()
    edge = all_choices(net)["normal/0-2"][0]
    x = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    with select(net, Softmax()(alphas)[0]):
        found = edge(x)
    weights = alphas["normal/0-2"].softmax(-1)
    wanted = sum(w * candidate(x) for w, candidate in zip(weights, edge.candidates, strict=True))
    assert torch.allclose(found, wanted, rtol=1e-12)


def test_a_cell_that_uses_an_input_twice_is_in_no_supernet():
    with pytest.raises(InputError, match="uses an input twice"):
        discretize(supernet(channels=2, cells=3), from_string("NASNet"))


def test_drop_path_is_on_all_operations_but_identities():
    net = network(from_string("DARTS_V1"), channels=4, cells=3)
    cells = [from_string("DARTS_V1").cell(kind) for kind in ("reduce", "reduce")]
    identities = sum(isinstance(m, nn.Identity) for cell in net.cells for m in cell.nodes.modules())
    drops = sum(isinstance(m, StochasticDepth) for m in net.modules())
    edges = sum(len(node) for cell in cells for node in cell.nodes) + 8  # cells 1 and 2 of 3 are reduction cells
    assert identities + drops == edges
    x = torch.randn(2, 3, 32, 32)
    before = net.train()(x)
    for module in net.modules():
        if isinstance(module, StochasticDepth):
            module.p = 0.5
    assert not torch.equal(net(x), before)


@pytest.mark.parametrize("label", OPERATIONS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [6, 7])
def test_every_operation_halves_upwards(label, stride, side):
    module = OPERATIONS[label](4, stride, True)
    assert module(torch.randn(2, 4, side, side)).shape == (2, 4, -(-side // stride), -(-side // stride))


@pytest.mark.parametrize("channels", [4, 8, 16])
@pytest.mark.parametrize("side", [7, 56])
def test_a_halving_skip_is_two_strided_convolutions(channels, side):
    """Values and gradients, in channels_last too, where PyTorch's own strided 1 × 1 convolution may end the process."""
    skip = FactorizedReduce(channels, channels).double()
    x = torch.randn(2, channels, side, side, dtype=torch.float64, requires_grad=True)
    padded = nn.functional.pad(x.relu(), (0, side % 2, 0, side % 2))
    halves = [
        nn.functional.conv2d(view, conv.weight, stride=2)
        for view, conv in ((padded, skip.first), (padded[:, :, 1:, 1:], skip.second))
    ]
    wanted = skip.norm(torch.cat(halves, 1))
    found = skip(x)
    assert torch.allclose(found, wanted, rtol=1e-12)
    grad = torch.randn_like(found)
    of = (x, skip.first.weight, skip.second.weight)
    for a, b in zip(torch.autograd.grad(found, of, grad), torch.autograd.grad(wanted, of, grad), strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)
    fast = copy.deepcopy(skip).float().to(memory_format=torch.channels_last)
    many = torch.randn(32, channels, side, side).to(memory_format=torch.channels_last).requires_grad_()
    for _ in range(4):
        fast(many).square().sum().backward()
    assert many.grad.isfinite().all()
