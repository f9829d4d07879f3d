"""Spaces: one contract for all of them."""

from __future__ import annotations

import pytest
import torch

from msgdas import Alphas, derive
from msgdas.samplers import SinglePath
from msgdas.spaces import SPACES
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
