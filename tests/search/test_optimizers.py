"""The optimizers of a search are PyTorch's, bit for bit."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import sys
from functools import partial

import pytest
import torch
from torch import nn, optim

from msgdas.errors import InputError
from msgdas.search import optimizers
from msgdas.search.optimizers import SGD, Adam

SGD_GIVEN = {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-2}
ADAM_GIVEN = {"betas": (0.5, 0.999), "weight_decay": 1e-2}
PAIRS = [
    (SGD(**SGD_GIVEN), partial(optim.SGD, lr=0.05, fused=True, **SGD_GIVEN)),
    (SGD(momentum=0.0, nesterov=False), partial(optim.SGD, lr=0.05, fused=True, weight_decay=5e-4)),
    (Adam(**ADAM_GIVEN), partial(optim.Adam, lr=1e-2, fused=True, **ADAM_GIVEN)),
    (partial(optimizers._SGD, lr=0.1, **SGD_GIVEN), partial(optim.SGD, lr=0.1, **SGD_GIVEN)),
    (partial(optimizers._Adam, lr=0.1, **ADAM_GIVEN), partial(optim.Adam, lr=0.1, **ADAM_GIVEN)),
]


def step(net, optimizer, seed):
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
    net(x).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_steps_and_states_are_pytorch_s(ours, theirs):
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    other = copy.deepcopy(net)
    optimizer, reference = ours(net.parameters()), theirs(other.parameters())
    assert isinstance(optimizer, type(reference))
    for seed in range(3):
        step(net, optimizer, seed)
        step(other, reference, seed)
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not a.grad_fn

    resumed = ours(net.parameters())
    resumed.load_state_dict(copy.deepcopy(reference.state_dict()))
    step(net, resumed, 3)
    step(other, reference, 3)
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_hooks_run_and_groups_are_added():
    seen = []
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = SGD()(first.parameters())
    optimizer.add_param_group({"params": list(second.parameters()), "lr": 0.2})
    optimizer.register_step_post_hook(lambda *_: seen.append("stepped"))
    before = second.weight.detach().clone()
    step(nn.Sequential(nn.Linear(3, 2), second), optimizer, 0)
    assert not torch.equal(second.weight, before)
    assert seen == ["stepped"]
    assert second.weight.grad is None


def test_factories_are_values():
    assert SGD(weight_decay=3e-4) == SGD(weight_decay=3e-4) != SGD()
    assert Adam() == Adam(betas=(0.5, 0.999)) != Adam(betas=(0.0, 0.999))
    with pytest.raises(InputError, match="momentum above 0"):
        SGD(momentum=0.0)


def test_where_pytorch_decorates_nothing_its_methods_are_taken_as_they_are(monkeypatch):
    """A later PyTorch may drop the decorators that ours takes off."""
    for cls, names in (
        (optim.Optimizer, ("add_param_group", "zero_grad", "state_dict", "load_state_dict")),
        (optim.SGD, ("step",)),
    ):
        for name in names:
            monkeypatch.setattr(cls, name, inspect.unwrap(getattr(cls, name)))
    spec = importlib.util.spec_from_file_location("optimizers_again", optimizers.__file__)
    again = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, again)
    spec.loader.exec_module(again)
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    other = copy.deepcopy(net)
    for module, factory in ((net, SGD()), (other, again.SGD())):
        optimizer = factory(module.parameters())
        for seed in range(3):
            step(module, optimizer, seed)
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
