"""The mbconv and mbconv-macro spaces: exact costs, text forms, images of any size, derived genotypes."""

from __future__ import annotations

import itertools

import pytest
import torch
from reference import searching
from torch import nn
from torchvision.models.mobilenetv2 import InvertedResidual as OfMobileNetV2

from msgdas import methods
from msgdas.alphas import Alphas
from msgdas.cost import count
from msgdas.derive import derive
from msgdas.discretize import discretize
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.ops import DropBlockIdentity, InvertedResidual, Projection
from msgdas.report.graph import to_text
from msgdas.report.palette import kind_of
from msgdas.samplers import Fixed
from msgdas.spaces import find_space, mbconv, mbconv_macro
from msgdas.supernet import all_choices, select

MOBILE = mbconv.PUBLISHED["ProxylessNAS_mobile"]
SPACES = pytest.mark.parametrize("space", [find_space("mbconv"), find_space("mbconv-macro")], ids=lambda s: s.name)


def tiny(space, **settings):
    """Arguments of a super-net for tests."""
    cells = {"mbconv": 2, "mbconv-macro": 8}[space.name]
    return {"channels": 4, "cells": cells, "classes": 3, "image_size": 8} | settings


def drawn(space, seed, **settings):
    """A super-net, its alphas and what they stand for."""
    net = space.supernet(**tiny(space, **settings))
    alphas = Alphas.of(net, init=1.0, generator=torch.Generator().manual_seed(seed))
    return net, alphas, derive(net, alphas)


@pytest.mark.parametrize("expansion", [1, 6])
@pytest.mark.parametrize(("c_out", "stride"), [(8, 1), (8, 2), (6, 1)])
def test_an_inverted_residual_is_that_of_mobilenetv2(expansion, c_out, stride):
    block, official = InvertedResidual(8, c_out, 3, expansion, stride), OfMobileNetV2(8, c_out, stride, expansion)
    for own, given in zip(block.parameters(), official.parameters(), strict=True):
        given.data = own.data.clone()
    x = torch.randn(2, 8, 7, 7)
    before = x.clone()
    assert torch.equal(block(x), official(x))
    assert torch.equal(x, before)  # candidates share it


def test_a_projection_is_a_strided_convolution():
    module, x = Projection(4, 6, 2).double().eval(), torch.randn(2, 4, 7, 7, dtype=torch.float64)
    assert torch.allclose(module(x), module.norm(nn.functional.conv2d(x, module.conv.weight, stride=2)))


# -------------------------------------------------------------------------- costs


def test_the_published_network_costs_what_is_published():
    """Parameters of ProxylessNAS-Mobile as in github.com/osmr/imgclsmob."""
    cost = count(mbconv.network(mbconv.from_string(MOBILE), classes=1000, image_size=224), image_size=224)
    assert (cost.params, cost.macs) == (4_080_512, 320_427_584)


# github.com/xiusu/NAS-Bench-Macro, data/nas-bench-macro_cifar10.json: "params" and "flops"
@pytest.mark.parametrize(
    ("text", "params", "flops"),
    [("02012100", 890_666, 47_327_744), ("11111221", 2_181_386, 65_012_224), ("00011110", 1_118_378, 31_390_208)],
)
def test_costs_are_those_of_the_table(text, params, flops):
    cost = count(mbconv_macro.network(mbconv_macro.from_string(text)))
    assert (cost.params, cost.macs) == (params, flops)


# -------------------------------------------------------------------------- texts


def test_all_strings_of_the_benchmark_come_back():
    texts = ["".join(digits) for digits in itertools.product("012", repeat=8)]
    genotypes = [mbconv_macro.from_string(text) for text in texts]
    assert [str(genotype) for genotype in genotypes] == texts
    assert len(set(genotypes)) == 6561


@SPACES
@pytest.mark.parametrize("seed", range(3))
def test_derived_genotypes_come_back_from_text_and_json(space, seed):
    _, _, genotype = drawn(space, seed)
    assert genotype.space == space.name
    assert space.from_string(str(genotype)) == genotype
    assert Genotype.from_dict(genotype.to_dict()) == genotype


def test_stages_may_be_long():
    net = mbconv.supernet(channels=2, cells=11, image_size=4)
    genotype = derive(net, Alphas.of(net, init=1.0))
    assert mbconv.from_string(str(genotype)) == genotype
    assert mbconv.network_size(4, genotype)["cells"] == 11


def test_a_published_network_has_a_name():
    assert str(mbconv.from_string("ProxylessNAS_mobile")) == MOBILE
    assert mbconv.network_size(224, mbconv.from_string(MOBILE)) == {"channels": 32, "cells": 4}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "same number of layers"),
        ("mb3_3x3", "same number of layers"),
        ("mb3_3x3/mb3_3x3,mb3_3x3/mb3_3x3/mb3_3x3/mb3_3x3/mb3_3x3", "same number of layers"),
        ("skip_connect/mb3_3x3/mb3_3x3/mb3_3x3/mb3_3x3/mb3_3x3", "stage1/1 is 'skip_connect', not one of mb3_3x3"),
        (MOBILE.replace("mb6_5x5", "mb4_5x5"), "stage4/1 is 'mb4_5x5', not one of"),
    ],
)
def test_a_wrong_mbconv_text_is_one_line(text, why):
    with pytest.raises(InputError, match=why) as error:
        mbconv.from_string(text)
    assert "\n" not in str(error.value)
    assert "six stages such as" in str(error.value)


@pytest.mark.parametrize("text", ["", "0201210", "020121000", "0201210x", "02012103"])
def test_a_wrong_benchmark_string_is_one_line(text):
    with pytest.raises(InputError, match="8 digits 0, 1 or 2"):
        mbconv_macro.from_string(text)


@SPACES
def test_a_genotype_of_another_space_has_no_network(space):
    with pytest.raises(InputError):
        space.network(Genotype("toy", {"part/0": "square"}))


def test_the_number_of_layers_is_the_genotypes():
    with pytest.raises(InputError, match="cells=3: this genotype has 4 layers per stage"):
        mbconv.network(mbconv.from_string(MOBILE), cells=3)
    with pytest.raises(InputError, match="cells=3: mbconv-macro always has 8 layers"):
        mbconv_macro.supernet(cells=3)


# --------------------------------------------------------------------- any images


@pytest.mark.parametrize(
    ("size", "stem", "strides"),
    [
        (224, 2, (2, 2, 2, 1, 2, 1)),  # 7
        (128, 2, (2, 2, 2, 1, 2, 1)),  # 4
        (96, 1, (2, 2, 2, 1, 2, 1)),  # 6
        (64, 1, (2, 2, 2, 1, 2, 1)),  # 4
        (48, 1, (1, 2, 2, 1, 2, 1)),  # 6
        (32, 1, (1, 2, 2, 1, 2, 1)),  # 4
        (28, 1, (1, 2, 2, 1, 2, 1)),  # 4
        (16, 1, (1, 1, 2, 1, 2, 1)),  # 4
        (8, 1, (1, 1, 1, 1, 2, 1)),  # 4
        (4, 1, (1, 1, 1, 1, 1, 1)),
    ],
)
def test_small_images_lose_the_first_halvings(size, stem, strides):
    found, layers = mbconv.plan(32, 4, size)
    assert found == stem
    assert tuple(layer.stride for layer in layers if layer.first) == strides
    assert [layer.c_out for layer in layers if layer.first] == [32, 40, 80, 96, 192, 320]
    assert [layer.c_out for layer in mbconv.plan(8, 1, size)[1]] == [8, 16, 24, 24, 48, 80]


@SPACES
@pytest.mark.parametrize("size", [4, 7, 8, 9, 28, 32, 64, 224])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_images_of_any_size(space, size, in_channels):
    net, _, genotype = drawn(space, 0, image_size=size, in_channels=in_channels)
    small = space.network(genotype, **tiny(space, image_size=size, in_channels=in_channels))
    maps = []
    for layer in small.layers:
        layer.register_forward_hook(lambda module, args, out: maps.append(min(out.shape[2:])))
    x = torch.randn(2, in_channels, size, size)
    assert small(x).shape == (2, 3)
    assert min(maps) >= 4
    (subgraph,) = Fixed(genotype)(Alphas.of(net))
    with select(net, subgraph):
        assert net(x).shape == (2, 3)


@SPACES
def test_too_small_an_image_is_one_line(space):
    with pytest.raises(InputError, match=r"image size 3: mbconv.*--image-size"):
        space.supernet(image_size=3)


# ------------------------------------------------------------------------- search


def test_skips_stand_where_the_shape_stays():
    net = mbconv.supernet(channels=4, cells=3, image_size=8)
    labels = {name: same[0].labels for name, same in all_choices(net).items()}
    assert len(labels) == 16
    for name, able in labels.items():
        assert able[:6] == ("mb3_3x3", "mb6_3x3", "mb3_5x5", "mb6_5x5", "mb3_7x7", "mb6_7x7")
        assert able[6:] == (() if name.endswith("/1") else ("skip_connect",))
    assert sum(isinstance(m, DropBlockIdentity) for m in net.modules()) == 10


@SPACES
@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_derived_networks_compute_what_the_supernet_does_bit_for_bit(space, seed, mode):
    net, alphas, genotype = drawn(space, seed)
    small, x = discretize(net, genotype), torch.randn(4, 3, 8, 8)
    (subgraph,) = Fixed(genotype)(alphas)
    with select(net.train(mode), subgraph):
        wanted = net(x)
    assert torch.equal(small.train(mode)(x), wanted)
    network = space.network(genotype, **tiny(space))  # the evaluation network is the derived one
    network.load_state_dict(small.state_dict())
    assert torch.equal(network.train(mode)(x), wanted)
    assert count(network, image_size=8) == count(small, image_size=8)


@SPACES
@pytest.mark.parametrize("method", ["msgdas", "darts", "proxylessnas"])
def test_a_search_takes_its_steps(space, method):
    search = searching(space.supernet(**tiny(space)), methods.METHODS[method](), steps=2, warmup=0.0)
    before = [p.clone() for p in search.alphas.parameters()]
    for _ in range(2):
        batch = torch.randn(6, 3, 8, 8), torch.arange(6) % 3
        assert search.step(batch, batch)["train_loss"] > 0
    assert any(not torch.equal(p, old) for p, old in zip(search.alphas.parameters(), before, strict=True))
    space.to_string(search.derive())


def test_a_network_is_drawn_stage_by_stage():
    graphs = mbconv.graphs(mbconv.from_string(MOBILE))
    assert {kind_of(label) for label in mbconv.BLOCKS} == {"conv"}
    assert [len(graph.edges) for graph in graphs] == [4, 4, 4, 4, 4, 1]
    assert to_text(graphs[0]).plain.splitlines()[3:5] == [
        "│ layer 1 ◀─── mb3_5x5 ──────── stem    │",
        "│ layer 2 ◀─── mb3_3x3 ──────── layer 1 │",
    ]
    assert [len(graph.edges) for graph in mbconv_macro.graphs(mbconv_macro.from_string("01201201"))] == [2, 3, 3]
