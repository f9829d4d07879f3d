"""Choices, alphas, sub-graphs and the operations."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import drop_block2d

from msgdas.alphas import Alphas
from msgdas.choice import MixedInput, MixedOp, all_choices, choices
from msgdas.errors import InputError
from msgdas.ops import DropBlockIdentity, Zero, relu_conv_bn
from msgdas.ops.drop import drop_block
from msgdas.ops.statistics import quiet
from msgdas.samplers import GumbelTopK
from msgdas.samplers.softmax import full
from msgdas.subgraph import Gate, SubGraph, select


def pair(name="c"):
    return MixedOp(name, {"a": nn.Tanh(), "b": nn.Sigmoid()})


def one(i, size=2):
    return Gate((i,), torch.eye(size)[i])


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: pair("a.b"), r"choice name 'a\.b'"),
        (lambda: pair(""), "choice name ''"),
        (lambda: MixedOp("c", []), "'c' has no candidates"),
        (lambda: all_choices(nn.Sequential(pair(), MixedOp("c", [nn.Tanh()]))), "choices named 'c' differ"),
        (lambda: pair()(torch.ones(1)), r"'c' has no gate: .*select"),
        (lambda: MixedInput("n", [nn.Tanh(), nn.Tanh()])([torch.ones(1)]), "2 incoming edges and was given 1"),
        (lambda: Alphas({}), "no choice to search"),
        (lambda: Alphas({"a.b": 2}), r"a\.b"),
        (lambda: select(pair(), SubGraph({"c": one(0), "d": one(0)})).__enter__(), "gate for 'd'"),
    ],
)
def test_bad_input_is_one_line_that_names_it(make, line):
    with pytest.raises(InputError, match=line) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_choice_may_stay_open_inside_an_edge_that_does_not_run():
    net, x = MixedInput("node", [pair("first"), pair("second")], keep=1), torch.randn(3)
    with select(net, SubGraph({"node": one(0), "first": one(1)})):
        assert torch.equal(net([x, x]), x.sigmoid())
    with (
        select(net, SubGraph({"node": one(0), "second": one(1)})),
        pytest.raises(InputError, match="'first' has no gate"),
    ):
        net([x, x])
    outer, inner = SubGraph({"node": one(1), "second": one(1)}), SubGraph({"node": one(1)})  # nothing is left of outer
    with select(net, outer), select(net, inner), pytest.raises(InputError, match="'second' has no gate"):
        net([x, x])


def test_select_nests_and_restores_even_after_an_error():
    net, x = nn.Sequential(pair(), pair()), torch.randn(3)
    with select(net, SubGraph({"c": one(0)})):
        assert torch.equal(net(x), x.tanh().tanh())  # one decision for all that share the name
        with pytest.raises(RuntimeError), select(net, SubGraph({"c": one(1)})):
            assert torch.equal(net(x), x.sigmoid().sigmoid())
            raise RuntimeError
        assert torch.equal(net(x), x.tanh().tanh())
    with pytest.raises(InputError):
        net(x)


def test_choices_that_share_a_name_share_their_draw():
    net = nn.Sequential(pair("x"), pair("y"), pair("x"))
    assert {name: len(same) for name, same in choices(net).items()} == {"x": 2, "y": 1}
    alphas = Alphas.of(net)
    for subgraph in GumbelTopK(2)(alphas):
        with select(net, subgraph):
            assert net[0].gate is net[2].gate is subgraph["x"]


def test_the_full_supernet_is_the_weighted_sum():
    net = pair()
    alphas, x = Alphas.of(net, init=1.0), torch.randn(5)
    p = alphas["c"].softmax(-1)
    with select(net, full(alphas)):
        torch.testing.assert_close(net(x), p[0] * x.tanh() + p[1] * x.sigmoid())


def test_an_unsearched_node_runs_all_its_edges():
    node, xs = MixedInput("n", [nn.Tanh(), nn.Sigmoid()]), torch.randn(2, 3)
    assert not choices(node)
    torch.testing.assert_close(node(list(xs)), xs[0].tanh() + xs[1].sigmoid())


def test_alphas_stack_with_padding_and_warm_up_is_uniform():
    alphas = Alphas({"a": 3, "b": ("x", "y")}, init=1.0)
    stacked = alphas.stack()
    assert torch.equal(stacked[1], torch.cat([alphas["b"], torch.tensor([-torch.inf])]))
    assert alphas.sizes == (3, 2)
    flat = alphas.double().uniform()
    assert flat.labels == alphas.labels
    assert flat["a"].dtype == torch.float64
    for name, p in flat.probabilities().items():
        torch.testing.assert_close(p, torch.full_like(p, 1 / len(alphas.labels[name])))


# operations


def test_drop_block_keeps_the_mean_and_drops_the_share_it_says():
    x = torch.ones(4000, 2, 12, 12)
    for p in (0.1, 0.3):
        y = drop_block(x, p, 3)
        dropped = (y == 0).float().mean().item()
        assert 0.75 * p < dropped < 1.1 * p  # overlapping blocks drop a little less than p
        assert abs(y.mean().item() - 1) < 0.01
        assert torch.equal(y[:, 0], y[:, 1])  # one mask for all channels
        assert len(torch.unique((y[:, 0] == 0).flatten(1), dim=0)) > 100


@pytest.mark.parametrize("p", [0.05, 0.3, 1.0])
@pytest.mark.parametrize(("size", "block"), [((32, 32), 3), ((7, 9), 5), ((8, 8), 1), ((3, 3), 5)])
def test_drop_block_is_torchvision_s_for_a_seed(size, block, p):
    x = torch.randn(4, 3, *size)
    torch.manual_seed(0)
    ours = drop_block(x, p, block)
    torch.manual_seed(0)
    assert torch.equal(ours, x * drop_block2d(torch.ones(4, 1, *size), p, block))


def test_drop_block_takes_a_map_that_is_smaller_than_a_block():
    y = drop_block(torch.ones(1000, 1, 2, 2), 0.3, 3)  # so a block is the whole map, of even side
    assert set(y.flatten(1).count_nonzero(1).tolist()) == {0, 4}
    assert 0.25 < (y == 0).float().mean() < 0.35


def test_drop_block_identity_is_the_identity_unless_it_drops():
    x = torch.ones(8, 2, 8, 8)
    assert DropBlockIdentity(0.0)(x) is x
    assert DropBlockIdentity(0.5).eval()(x) is x
    drop = DropBlockIdentity(0.5)
    assert not torch.equal(drop(x), x)
    with quiet(drop):
        assert drop(x) is x
    with quiet(drop, drop=True):
        assert not torch.equal(drop(x), x)
    assert drop.p == 0.5


def test_quiet_normalises_with_batch_statistics_and_forgets_them():
    net, x = nn.Sequential(nn.BatchNorm2d(3)), torch.randn(4, 3, 5, 5) + 2
    with pytest.raises(RuntimeError), quiet(net):
        assert not net[0].num_batches_tracked
        quiet_output = net(x)
        raise RuntimeError
    assert net[0].num_batches_tracked == 0
    assert not net[0].running_mean.any()
    assert torch.equal(net(x), quiet_output)
    assert net[0].num_batches_tracked == 1


def test_operations_leave_their_input_alone():
    x = torch.randn(2, 3, 9, 9)
    before = x.clone()
    assert relu_conv_bn(3, 4, 3, 2)(x).shape == (2, 4, 5, 5)
    assert not Zero()(x).any()
    assert torch.equal(x, before)


def test_uniform_alphas_leave_the_global_random_state_alone():
    alphas, state = Alphas({"c": 3}), torch.get_rng_state()
    assert not alphas.uniform()["c"].any()
    assert torch.equal(state, torch.get_rng_state())
