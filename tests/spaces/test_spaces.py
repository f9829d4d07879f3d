"""Spaces: one contract for all of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from msgdas import Alphas, MixedOp, derive
from msgdas.ops import relu_conv_bn
from msgdas.samplers import SinglePath
from msgdas.spaces import SPACES, _of_supernet
from msgdas.supernet import choices, select

DATA = {"classes": 3, "in_channels": 1, "image_size": 9}


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_contract(space):
    """Any number of channels and classes; what is derived is the space's, has a text, and becomes a network."""
    torch.manual_seed(0)
    size = {**space.search_size, "channels": 4, **DATA}
    net = space.supernet(**size).eval()
    assert choices(net)
    assert not any("." in name for name in choices(net))
    alphas = Alphas.of(net, init=1.0, generator=torch.Generator().manual_seed(1))
    (drawn,) = SinglePath()(alphas, generator=torch.Generator().manual_seed(2))
    x = torch.randn(2, 1, 9, 9)
    with select(net, drawn):
        assert net(x).shape == (2, 3)

    genotype = derive(net, alphas)
    assert genotype.space == space.name
    assert space.from_string(space.to_string(genotype)) == genotype
    assert str(genotype) == space.to_string(genotype)
    space.graphs(genotype)
    size = {**space.network_size(9, genotype), "channels": 8, **DATA}
    network = space.network(genotype, **size).eval()
    assert network(x).shape == (2, 3)
    assert not choices(network)


def test_a_space_can_be_one_function():
    def blocks(*, channels, cells, classes, in_channels, image_size):
        stem = nn.Conv2d(in_channels, channels, 3, padding=1)
        layers = [
            MixedOp(f"block/{i}", {"conv": relu_conv_bn(channels, channels, 3), "skip": nn.Identity()})
            for i in range(cells)
        ]
        return nn.Sequential(stem, *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))

    space = _of_supernet("blocks", "three blocks", blocks, {"channels": 4, "cells": 3}, "in total")
    test_contract(space)
    assert str(space.from_string("block/0=conv, block/1=skip")) == "block/0=conv, block/1=skip"
