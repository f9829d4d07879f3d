"""The optimizers of a search: PyTorch's SGD and Adam, without its compiler.

PyTorch imports ``torch._dynamo`` for the first optimizer of a process, in as much time as all else of PyTorch, to keep
``torch.compile`` out of some of its methods. A search compiles nothing; so these have the methods themselves, without
what is wrapped around them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import partial

import torch
from torch import nn, optim
from torch.optim import Optimizer

__all__ = ["SGD", "Adam", "default_alpha_optimizer", "default_weight_optimizer"]


class _Uncompiled(Optimizer):
    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)


class SGD(_Uncompiled, optim.SGD):
    """`torch.optim.SGD`, not differentiable and not to be compiled."""

    step = torch.no_grad()(inspect.unwrap(optim.SGD.step))


class Adam(_Uncompiled, optim.Adam):
    """`torch.optim.Adam`, not differentiable and not to be compiled."""

    step = torch.no_grad()(inspect.unwrap(optim.Adam.step))


def default_weight_optimizer(parameters: Iterable[nn.Parameter], weight_decay: float = 5e-4) -> Optimizer:
    """SGD with Nesterov momentum 0.9, in one kernel."""
    optimizer = SGD(parameters, lr=0.05, momentum=0.9, nesterov=True, weight_decay=weight_decay, fused=True)
    for group in optimizer.param_groups:
        for p in group["params"]:  # the kernel takes no mixture of parameters with and without momentum; 0 is none
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


default_alpha_optimizer = partial(Adam, lr=1e-2, betas=(0.5, 0.999), weight_decay=0.0, fused=True)
