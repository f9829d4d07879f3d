"""Optimizer factories of a search: frozen values that, called with parameters, give a PyTorch optimizer.

`torch.optim` imports the compiler (``torch._dynamo``, over a second) for the first optimizer of a process, only to keep
`torch.compile` out of the optimizer's methods. A search does not compile its optimizers, so `_SGD` and `_Adam` are
PyTorch's own classes with those decorators taken off. `inspect.unwrap` follows the standard ``__wrapped__``; should
PyTorch stop decorating a method, it returns the method as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn, optim
from torch.optim import Optimizer

from msgdas.errors import InputError

__all__ = ["SGD", "Adam"]


@dataclass(frozen=True)
class SGD:
    """Factory of a fused `torch.optim.SGD`. The search sets the learning rate before every step.

    Examples:
        >>> optimizer = SGD(momentum=0.9, weight_decay=3e-4)(net.parameters())

    Raises:
        InputError: Nesterov momentum without momentum.
    """

    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum > 0:
            raise InputError(f"SGD(momentum={self.momentum}, nesterov=True): use a momentum above 0, or nesterov=False")

    def __call__(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        optimizer = _SGD(
            parameters,
            lr=0.05,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            fused=True,
        )
        if self.momentum:
            # A sub-graph reaches some parameters later than others, and the fused kernel refuses a mixture of those
            # with and without a momentum buffer. A buffer of zeros is the same as none.
            for group in optimizer.param_groups:
                for p in group["params"]:
                    optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
        return optimizer


@dataclass(frozen=True)
class Adam:
    """Factory of a fused `torch.optim.Adam`. The search sets the learning rate before every step.

    Examples:
        >>> optimizer = Adam(betas=(0.0, 0.999))(alphas.parameters())
    """

    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 0.0

    def __call__(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        return _Adam(parameters, lr=1e-2, betas=self.betas, weight_decay=self.weight_decay, fused=True)


class _Undecorated(Optimizer):
    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)


class _SGD(_Undecorated, optim.SGD):
    step = torch.no_grad()(inspect.unwrap(optim.SGD.step))


class _Adam(_Undecorated, optim.Adam):
    step = torch.no_grad()(inspect.unwrap(optim.Adam.step))
