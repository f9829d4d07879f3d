"""What tests share: a small super-net, a batch, the super-net written out without choices, maps for kernels."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import fields, replace

import torch
from torch import nn

from msgdas.alphas import Alphas
from msgdas.choice import MixedOp
from msgdas.search.execution import Execution
from msgdas.search.method import Method
from msgdas.search.search import Search
from msgdas.spaces import nasbench201

X, Y = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double(), torch.tensor([0, 1, 2, 0])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@contextmanager
def threads(number):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def a_map(channels=4, side=8, *, dtype=torch.float64, centre=0.0):
    x = torch.randn(4, channels, side, side, dtype=dtype) + centre
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def small_net(cells):
    """Cells that share their six choices; none, identity, ReLU-conv-BN and pooling candidates."""
    return nasbench201.supernet(channels=2, cells=cells, classes=3, image_size=8).double()


def every_edge(cell):
    """What a NAS-Bench-201 cell runs by node, if it runs everything."""
    return [(node, [(i, s) for i, (s, t) in enumerate(nasbench201.EDGES) if t == node]) for node in (1, 2, 3)]


def alphas_of(net):
    return Alphas.of(net, init=0.5, generator=seeded()).double()


def smooth():
    """A network without kinks, whose finite differences have no steps to fall over."""
    torch.manual_seed(1)

    def candidates():
        return {"linear": nn.Linear(6, 6), "tanh": nn.Sequential(nn.Linear(6, 6), nn.Tanh()), "skip": nn.Identity()}

    choices = [MixedOp(f"c{i}", candidates()) for i in range(3)]
    return nn.Sequential(nn.Linear(3, 6), *choices, nn.Linear(6, 3)).double()


def searching(net, method, **changes):
    """A search by ``method`` with other fields, of the method, of its execution or of the search."""
    execution = {f.name: changes.pop(f.name) for f in fields(Execution) if f.name in changes}
    method = replace(method, **{f.name: changes.pop(f.name) for f in fields(Method) if f.name in changes})
    return Search(net, method, execution=Execution(**execution), **changes)


def change(search, **fields):
    """Give a search a method with other fields."""
    search.method = replace(search.method, **fields)


class _Written(nn.Module):
    def __init__(self, choice, output):
        super().__init__()
        self.name, self.candidates, self.output = choice.name, choice.candidates, output

    def forward(self, x):
        return self.output(self.name, self.candidates, x)


def written_out(net, output):
    """A copy of the network with ``output(name, candidates, x)`` in place of every choice."""
    net = copy.deepcopy(net)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, MixedOp):
                setattr(parent, name, _Written(child, output))
    return net
