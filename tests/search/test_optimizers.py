"""The optimizers of a search are PyTorch's, bit for bit."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn, optim

from msgdas.search.optimizers import SGD, Adam

PAIRS = [
    (partial(SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2), optim.SGD),
    (partial(SGD, lr=0.1, momentum=0.9, fused=True), optim.SGD),
    (partial(Adam, lr=0.1, betas=(0.5, 0.999), weight_decay=1e-2), optim.Adam),
    (partial(Adam, lr=0.1, betas=(0.5, 0.999), fused=True), optim.Adam),
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
    optimizer, reference = ours(net.parameters()), theirs(other.parameters(), **ours.keywords)
    assert isinstance(optimizer, theirs)
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
    optimizer = SGD(first.parameters(), lr=0.1)
    optimizer.add_param_group({"params": list(second.parameters()), "lr": 0.2})
    optimizer.register_step_post_hook(lambda *_: seen.append("stepped"))
    before = second.weight.detach().clone()
    step(nn.Sequential(nn.Linear(3, 2), second), optimizer, 0)
    assert not torch.equal(second.weight, before)
    assert seen == ["stepped"]
    assert second.weight.grad is None
