"""S1 to S4: operations allowed per edge, noise, derived genotypes."""

from __future__ import annotations

import copy

import pytest
import torch
from reference import searching

from msgdas import methods
from msgdas.alphas import Alphas
from msgdas.choice import MixedOp
from msgdas.derive import derive
from msgdas.discretize import discretize
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.ops import Noise
from msgdas.report.graph import to_text
from msgdas.samplers import Fixed
from msgdas.spaces import find_space
from msgdas.spaces.robust_darts import CANDIDATES
from msgdas.supernet import all_choices, select

TINY = {"channels": 4, "cells": 3, "classes": 3, "image_size": 8}
# github.com/automl/RobustDARTS, experiments/search_logs/s1/cifar10/0.0_0.0003-2516843/arch_1: a search of theirs
OF_S1 = (
    "Genotype(normal=[('skip_connect', 1), ('dil_conv_3x3', 0), ('skip_connect', 2), ('skip_connect', 0), "
    "('skip_connect', 0), ('skip_connect', 2), ('skip_connect', 2), ('skip_connect', 1)], normal_concat=[2, 3, 4, 5], "
    "reduce=[('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('max_pool_3x3', 0), ('max_pool_3x3', 0), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
)


@pytest.mark.parametrize(
    ("space", "edge", "labels"),
    [
        ("s1", "normal/0-2", ("skip_connect", "dil_conv_3x3")),
        ("s1", "normal/4-5", ("dil_conv_3x3", "dil_conv_5x5")),
        ("s1", "reduce/1-4", ("max_pool_3x3", "sep_conv_3x3")),
        ("s1", "reduce/4-5", ("skip_connect", "dil_conv_5x5")),
        ("s2", "normal/0-2", ("skip_connect", "sep_conv_3x3")),
        ("s3", "reduce/1-3", ("none", "skip_connect", "sep_conv_3x3")),
        ("s4", "normal/3-5", ("noise", "sep_conv_3x3")),
    ],
)
def test_edges_have_the_operations_of_their_space(space, edge, labels):
    net = find_space(space).supernet(**TINY)
    found = {name: same[0].labels for name, same in all_choices(net).items() if isinstance(same[0], MixedOp)}
    assert found == CANDIDATES[space]
    assert found[edge] == labels


@pytest.mark.parametrize("name", CANDIDATES)
@pytest.mark.parametrize("seed", range(3))
def test_derived_cells_come_back_and_compute_what_the_supernet_does(name, seed):
    space = find_space(name)
    net = space.supernet(**TINY)
    alphas = Alphas.of(net, init=1.0, generator=torch.Generator().manual_seed(seed))
    genotype = derive(net, alphas)
    assert genotype.space == name
    assert genotype.share("none") == 0
    assert space.from_string(str(genotype)) == genotype
    assert Genotype.from_dict(genotype.to_dict()) == genotype
    (subgraph,), small, x = Fixed(genotype)(alphas), discretize(net, genotype), torch.randn(4, 3, 8, 8)
    torch.manual_seed(1)  # of the noise
    with select(net, subgraph):
        wanted = net(x)
    torch.manual_seed(1)
    assert torch.equal(small(x), wanted)
    assert space.network(genotype, **TINY)(x).shape == (4, 3)
    assert [to_text(graph).plain.count("concat") for graph in space.graphs(genotype)] == [4, 4]


def test_a_cell_of_the_papers_own_search_is_read():
    assert str(find_space("s1").from_string(OF_S1.replace("[2, 3, 4, 5]", "range(2, 6)"))) == OF_S1


@pytest.mark.parametrize(
    ("space", "text", "why"),
    [
        ("s2", OF_S1, "dil_conv_3x3 from 0 to 2 in the normal cell: s2 allows skip_connect or sep_conv_3x3 there"),
        ("s4", "DARTS_V2", "sep_conv_3x3|skip_connect from 0 to 4 in the normal cell: s4 allows noise or sep_conv_3x3"),
        ("s3", "unknown", r"s3 genotype 'unknown' is not known: use Genotype\("),
        ("s3", "Genotype()", "is not a genotype of space s3"),
    ],
)
def test_what_a_space_has_not_is_one_line(space, text, why):
    with pytest.raises(InputError, match=why) as error:
        find_space(space).from_string(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("side", "stride", "wanted"), [(8, 1, 8), (8, 2, 4), (7, 2, 4)])
def test_noise_is_noise_whatever_comes_in(side, stride, wanted):
    module, x = Noise(stride).eval(), torch.randn(64, 8, side, side, requires_grad=True)
    found = module(x)
    assert found.shape == (64, 8, wanted, wanted)
    assert not found.requires_grad
    assert not torch.equal(found, module(x))  # anew each time, in evaluation too
    assert abs(found.mean()) < 0.05
    assert abs(found.std() - 1) < 0.05


@pytest.mark.parametrize(("method", "settings"), [("msgdas", {"k": 2}), ("darts", {}), ("gdas", {})])
@pytest.mark.parametrize("name", CANDIDATES)
def test_a_search_takes_its_steps_and_goes_on_bit_for_bit(name, method, settings):
    """A checkpoint holds the random state that the noise is drawn from."""

    def search():
        return searching(find_space(name).supernet(**TINY), methods.METHODS[method](**settings), steps=4, warmup=0.0)

    batch = torch.randn(6, 3, 8, 8), torch.arange(6) % 3
    first, second = search(), search()
    first.step(batch, batch)
    state = copy.deepcopy(first.state_dict())
    wanted = first.step(batch, batch)
    second.load_state_dict(state)
    assert second.step(batch, batch) == wanted
    find_space(name).to_string(second.derive())
