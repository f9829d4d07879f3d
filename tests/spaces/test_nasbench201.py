"""NAS-Bench-201: official strings, exact costs, images of any size."""

from __future__ import annotations

import csv
import gzip
import itertools
import time
from pathlib import Path

import pytest
import torch
from reference import every_edge

from msgdas.alphas import Alphas
from msgdas.cost import count
from msgdas.discretize import discretize
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.samplers import Fixed
from msgdas.spaces import SPACES, find_space
from msgdas.spaces.nasbench201 import EDGES, OPERATIONS, Cell, from_string, network, stages, supernet, to_string
from msgdas.subgraph import cut
from msgdas.supernet import choices, select

TABLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "nasbench201_valid.csv.gz"
CONV = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def test_all_strings_come_back():
    seen = set()
    for ops in itertools.product(OPERATIONS, repeat=6):
        a, b, c, d, e, f = ops
        text = f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"
        genotype = from_string(text)
        assert to_string(genotype) == text
        seen.add(genotype)
    assert len(seen) == 5**6
    assert str(genotype) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "|none~0|",
        CONV[:-1],
        CONV + "+|none~0|",
        CONV.replace("~2", "~1"),
        CONV.replace("skip_connect", "sep_conv_3x3"),
        CONV.replace("+", "|", 1),
        CONV.replace("|nor_conv_3x3~0|+", "|nor_conv_3x3~0||none~0|+", 1),
    ],
)
def test_a_wrong_string_is_one_line(text):
    with pytest.raises(InputError, match="not a NAS-Bench-201 string") as error:
        from_string(text)
    assert "\n" not in str(error.value)
    assert repr(text) in str(error.value)


def test_a_genotype_of_another_space_has_no_network():
    with pytest.raises(InputError, match="not a nasbench201 cell"):
        network(Genotype("toy", {"part/0": "square"}))


def test_spaces_are_found_by_name():
    assert find_space("nasbench201") is SPACES["nasbench201"]
    with pytest.raises(InputError, match=r"'darts2'.*nasbench201"):
        find_space("darts2")


def test_costs_are_those_of_the_table():
    if not TABLE.exists():
        pytest.skip(f"{TABLE} is not there")
    with gzip.open(TABLE, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[::2000]
    for row in rows:
        genotype = from_string(row["arch_str"])
        for data, classes, size in (("c10", 10, 32), ("c100", 100, 32), ("in16", 120, 16)):
            cost = count(network(genotype, classes=classes, image_size=size), image_size=size)
            assert cost.params == int(row[f"params_{data}"])
            # in millions to four digits; the table counts the classifier's bias too
            assert abs(cost.macs + classes - 1e6 * float(row[f"flops_m_{data}"])) < 51


# images of any size


@pytest.mark.parametrize("part", ["x", "|x", "~0|", "|x~0"])
def test_a_long_text_takes_linear_time_and_a_short_line(part):
    def seconds(count):
        began = time.process_time()
        with pytest.raises(InputError, match=r"… \([\d,]+ characters\) is not a NAS-Bench-201") as error:
            from_string(f"|nor_conv_3x3~0|+|{count * part}")
        assert len(str(error.value)) < 1000
        return time.process_time() - began

    short, long = (min(seconds(count) for _ in range(3)) for count in (10_000, 80_000))
    assert long < 30 * short  # 8 times the text; in quadratic time it was 64 times


@pytest.mark.parametrize(("size", "wanted"), [(4, 1), (8, 2), (16, 3), (32, 3), (48, 3), (64, 3), (224, 3), (300, 3)])
def test_stages_follow_their_rule(size, wanted):
    halvings, count = stages(size)
    inside = size
    for _ in range(halvings):
        assert inside > 48  # halved only while too large
        inside = (inside + 1) // 2
    assert inside <= 48
    assert count == wanted
    assert inside // 2 ** (count - 1) >= 4
    assert count == 3 or inside // 2**count < 4  # as many as fit


def test_too_small_an_image_is_one_line():
    with pytest.raises(InputError, match=r"image size 3: .*--image-size"):
        stages(3)


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("size", [4, 8, 9, 15, 16, 32, 33, 49, 64, 224])
def test_images_of_any_size_and_both_colour_modes(size, in_channels):
    settings = {"channels": 2, "cells": 1, "classes": 5, "in_channels": in_channels, "image_size": size}
    net = network(from_string(CONV), **settings)
    maps = []
    for layer in net.layers:
        layer.register_forward_hook(lambda module, args, out: maps.append(tuple(out.shape[1:])))
    assert net(torch.randn(2, in_channels, size, size)).shape == (2, 5)
    assert maps[-1][0] == 2 * 2 ** (stages(size)[1] - 1)
    assert min(maps[-1][1:]) >= 4


def test_cells_share_their_choices():
    net = supernet(channels=2, cells=2, image_size=8)
    found = choices(net)
    assert list(found) == [f"cell/{s}-{t}" for s, t in EDGES]
    assert all(len(same) == 4 for same in found.values())


DEAD = {  # cell → nodes that reach its output
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|nor_conv_1x1~0|skip_connect~1|none~2|": {1, 3},
    "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|nor_conv_3x3~0|none~1|nor_conv_1x1~2|": {1, 2, 3},
    "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|nor_conv_3x3~0|none~1|nor_conv_1x1~2|": {2, 3},
    "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|none~1|none~2|": {3},
}


@pytest.mark.parametrize("text", DEAD)
@pytest.mark.parametrize("searched", [False, True])
def test_nodes_that_do_not_reach_the_output_are_not_computed_in_training(text, searched, monkeypatch):
    net = supernet(channels=4, cells=1, image_size=8).double()
    subgraphs = Fixed(from_string(text))(Alphas.of(net).double())
    if not searched:
        net = discretize(net, from_string(text))
    assert set(first_cell(net, subgraphs[0] if searched else {})) == DEAD[text]
    traces, x = [], torch.randn(2, 3, 8, 8).double()
    for edges_into in (Cell._incoming, every_edge):
        monkeypatch.setattr(Cell, "_incoming", edges_into)
        (leaf,), _ = cut(subgraphs)
        net.zero_grad(set_to_none=True)
        with select(net, leaf if searched else {}):
            logits = net(x)
            logits.square().sum().backward()
        traces.append([logits, *(p.grad for p in net.parameters()), *(gate.weights.grad for gate in leaf.values())])
    for found, plain in zip(*traces, strict=True):
        if found is None:  # a gate that did not run, or weights that nothing asked
            assert plain is None or not plain.any()
        else:
            assert torch.equal(found, plain)


def first_cell(net, subgraph):
    cell = next(m for m in net.modules() if isinstance(m, Cell))
    with select(net, subgraph):
        return dict(cell._incoming())


@pytest.mark.parametrize("text", [CONV, *DEAD])
def test_none_is_not_computed(text):
    net = supernet(channels=4, cells=1, image_size=8)
    (subgraph,) = Fixed(from_string(text))(Alphas.of(net))
    running = [(source, node) for node, edges in first_cell(net, subgraph).items() for _, source in edges]
    assert all(from_string(text)[f"cell/{s}-{t}"] != ("none",) for s, t in running)


def test_what_is_probed_is_computed():
    net = supernet(channels=4, cells=1, image_size=8)
    subgraphs = Fixed(from_string("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"))(Alphas.of(net))
    for others, edges in ((None, 0), ("probed", 6), ("added", 6)):
        (leaf,), _ = cut(subgraphs, others=others)
        assert sum(len(each) for each in first_cell(net, leaf).values()) == edges
        with select(net, leaf):
            net(torch.randn(2, 3, 8, 8)).sum().backward()
        grad = leaf["cell/0-3"].weights.grad
        assert grad is None if others is None else grad[[*OPERATIONS].index("none")] == 0
