"""The law of the speed wing: a sped-up network computes what it computed before, in every space, by every method.

In float64, with PyTorch's operations and with compiled kernels. The thresholds below which a twin leaves the work to
PyTorch are lifted, so that tiny networks run what large ones run.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext, suppress
from functools import cache
from typing import NamedTuple

import pytest
import torch
from reference import alphas_of, seeded
from torch import nn
from torch.nn import functional as F

from msgdas.bench.setups import genotype_of
from msgdas.discretize import discretize
from msgdas.errors import InputError
from msgdas.fast import depthwise, norm, pool, private, slow_down, speed_up
from msgdas.fast.dense import DenseConv2d
from msgdas.methods import METHODS
from msgdas.ops import DropBlockIdentity
from msgdas.ops.statistics import quiet
from msgdas.samplers import SinglePath, Softmax
from msgdas.spaces import SPACES
from msgdas.spaces.supernet_options import supernet_options
from msgdas.subgraph import SubGraph, cut
from msgdas.supernet import select

CLOSE = 1e-12  # relative to the largest number of a tensor, or to 1
SMALLEST = {
    "nasbench201": {"channels": 4, "cells": 1},
    "mbconv": {"channels": 2, "cells": 1},
    "mbconv-macro": {"channels": 4, "cells": 8},
}
OF_DARTS = {"channels": 4, "cells": 3}  # one normal cell, two reductions
BRIEFLY = "darts", "s2", "s4", "mbconv"  # by default by two methods only: large, or like s1 and s3
ALIKE = "r-darts", "darts-2nd"  # run what darts and snas run
LABELS = torch.tensor([0, 1])

either = pytest.mark.parametrize("kernels", [False, True], indirect=True, ids=["PyTorch's", "compiled"])
every_space = pytest.mark.parametrize("space", SPACES)


def pairs():
    """Every space with every method that it has a super-net for; those that repeat others are slow."""
    for space in SPACES.values():
        for name, make in METHODS.items():
            with suppress(InputError):  # the space cannot give what the method asks for
                supernet_options(space, name, make().supernet)
                slow = name in ALIKE or (space.name in BRIEFLY and name not in ("msgdas", "darts"))
                yield pytest.param(space.name, name, marks=[pytest.mark.slow] if slow else [])


@pytest.fixture(autouse=True)
def everywhere(monkeypatch):
    """Twins work on maps of any size."""
    monkeypatch.setattr(norm, "ONE_THREAD", (64, 1))
    monkeypatch.setattr(norm, "THREADS", (64, 1))
    monkeypatch.setattr(pool, "PIXELS", 0)
    monkeypatch.setattr(depthwise, "PIXELS", 0)


def build(space, method="random"):
    """The smallest super-net that the method asks for, with DropBlock on."""
    torch.manual_seed(0)
    options = supernet_options(SPACES[space], method, METHODS[method]().supernet)
    sizes = SMALLEST.get(space, OF_DARTS) | options
    net = SPACES[space].supernet(classes=2, image_size=8, **sizes)
    for module in net.modules():
        if isinstance(module, DropBlockIdentity):
            module.p = 0.3
    return net.to(torch.float64, memory_format=torch.channels_last)


def images():
    return torch.randn(2, 3, 8, 8, generator=seeded()).double().contiguous(memory_format=torch.channels_last)


# ------------------------------------------------------------- values and gradients


class Pass(NamedTuple):
    """A forward pass of a sub-graph, and what its backward computes: ``"gates"``, ``"weights"``, both or nothing."""

    subgraph: SubGraph
    gradients: tuple[str, ...] = ()
    others: str | None = None


def passes(name, net):
    """Those of an alpha step and of a weight step of the method. All sub-graphs of a step run alike: one is enough."""
    method, alphas, generator = METHODS[name]().for_net(net), alphas_of(net), seeded(1)
    drawn = method.sampler(alphas, generator=generator)[0]
    with torch.no_grad():
        weight_step = Pass(method.weight_sampler(alphas, generator=generator)[0], ("weights",))
    alpha_step = Pass(drawn, ("gates",))
    if method.learning == "none":
        return [weight_step]
    if name in ("snas", "darts-2nd"):  # weights and alphas learn from one pass
        return [Pass(drawn, ("gates", "weights")), weight_step]
    if name == "msgdas":  # by comparing, or through the gates
        return [Pass(drawn), alpha_step, alpha_step._replace(others="probed"), weight_step]
    if name == "gdas":
        return [alpha_step, alpha_step._replace(others="added"), weight_step]
    return [alpha_step, weight_step]


def trace(net, steps):
    """Logits and gradients of every pass, and the running statistics after all of them."""
    torch.manual_seed(1)  # DropBlock draws from the global generator
    x, weights, found = images(), dict(net.named_parameters()), {}
    for i, (subgraph, gradients, others) in enumerate(steps):
        ((subgraph,), _) = cut([subgraph], others=others) if "gates" in gradients else ([subgraph], None)
        learning = {"gates": {name: gate.weights for name, gate in subgraph.items()}, "weights": weights}
        with (
            nullcontext() if "weights" in gradients else quiet(net, drop=True),
            torch.set_grad_enabled(bool(gradients)),
            select(net, subgraph),
        ):
            logits = net(x)
            if gradients:
                inputs = [tensor for kind in gradients for tensor in learning[kind].values()]
                F.cross_entropy(logits, LABELS).backward(inputs=inputs)
        found[f"logits {i}"] = logits.detach()
        found |= {f"{kind} {i} {name}": t.grad for kind in gradients for name, t in learning[kind].items()}
        net.zero_grad(set_to_none=True)
    return found | {name: buffer.clone() for name, buffer in net.named_buffers()}


@cache
def plainly(space, method):
    """The passes of the method, and what they compute in a super-net that is not sped up."""
    net = build(space, method)
    steps = passes(method, net)
    return steps, trace(net, steps)


def assert_same(found, plain):
    assert found.keys() == plain.keys()
    for name, value in plain.items():
        assert (value is None) == (found[name] is None), name
        if value is not None:
            off, size = (found[name] - value).abs().max(), value.abs().max().clamp_min(1)
            assert off <= CLOSE * size, f"{name}: {off} of {size}"


@either
@pytest.mark.parametrize(("space", "method"), list(pairs()))
def test_values_gradients_and_running_statistics_are_equal(space, method, kernels):
    steps, plain = plainly(space, method)
    net = build(space, method)
    speed_up(net)
    assert_same(trace(net, steps), plain)


@pytest.mark.usefixtures("kernels")
@every_space
def test_in_evaluation_too(space):
    net = build(space).eval()
    steps = [Pass(Softmax()(alphas_of(net))[0], ("gates", "weights"))]
    plain = trace(net, steps)
    speed_up(net)
    assert_same(trace(net, steps), plain)


@pytest.mark.parametrize("method", ["msgdas", "darts"])
def test_without_the_private_names_of_pytorch(method, monkeypatch):
    monkeypatch.setattr(private, "_will_execute", None)
    monkeypatch.setattr(private, "_any_global_hook", None)
    steps, plain = plainly("s3", method)
    net = build("s3", method)
    speed_up(net)
    assert_same(trace(net, steps), plain)


@either
@every_space
def test_a_derived_network_computes_the_same_bits(space, kernels):
    """Sped up again, because nodes that keep some of their inputs are new modules. With ``none`` it would differ by
    rounding: the kernels add its zeros."""
    net, x = build(space).float(), images().float()
    speed_up(net)
    alphas = alphas_of(net).float()
    for name in alphas.names:
        alphas[name].data[torch.tensor([label == "none" for label in alphas.labels[name]])] = -100.0
    (subgraph,) = SinglePath()(alphas, generator=seeded())
    plain = discretize(net, genotype_of(net, alphas.labels, subgraph))
    speed_up(plain)
    for training in (True, False):
        outputs = []
        for each in (net, plain):
            torch.manual_seed(1)  # the candidate "noise" draws from the global generator
            with select(net, subgraph), quiet(each):
                outputs.append(each.train(training)(x))
        assert torch.equal(*outputs)


# ------------------------------------------------------------------ the class swap


@every_space
def test_undoing_it_leaves_the_network_as_it_was(space):
    net = build(space)
    kinds, keys = [type(module) for module in net.modules()], list(net.state_dict())
    tensors = [id(tensor) for tensor in (*net.parameters(), *net.buffers())]
    undo = speed_up(net)
    assert [type(module) for module in net.modules()] != kinds
    for _ in range(2):  # sped up, and back
        assert list(net.state_dict()) == keys
        assert [id(tensor) for tensor in (*net.parameters(), *net.buffers())] == tensors
        undo()
    assert [type(module) for module in net.modules()] == kinds


def test_a_copy_of_a_fast_network_is_fast_and_slowed_down_by_itself():
    net = build("darts")
    kinds = [type(module) for module in net.modules()]
    speed_up(net)
    fast, twin = [type(module) for module in net.modules()], copy.deepcopy(net)
    assert [type(module) for module in twin.modules()] == fast
    slow_down(twin)
    assert [type(module) for module in twin.modules()] == kinds
    assert [type(module) for module in net.modules()] == fast


def test_hooks_stay_and_are_called_as_often():
    net, called = build("nasbench201"), []
    for module in net.modules():
        module.register_forward_hook(lambda module, args, y: called.append(id(module)))
    (subgraph,) = Softmax()(alphas_of(net))
    with select(net, subgraph), torch.no_grad():
        net(images())
        plain = sorted(called)
        called.clear()
        speed_up(net)
        net(images())
    assert sorted(called) == plain


def test_a_subclass_is_left_alone():
    class Mine(nn.Conv2d):
        pass

    net = nn.Sequential(Mine(8, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 3, padding=1, bias=False))
    speed_up(net)
    assert type(net[0]) is Mine
    assert type(net[1]) is DenseConv2d
