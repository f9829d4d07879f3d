"""Networks and the whole super-net as other code runs them: what ours are measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial, reduce
from operator import add

import torch
from torch import Tensor, nn
from torch.optim import SGD

from msgdas.choice import MixedInput, MixedOp
from msgdas.fast.dense import DenseConv2d
from msgdas.fast.depthwise import DepthwiseConv2d
from msgdas.methods import darts
from msgdas.ops import AvgPool2x2, AvgPool3x3, BatchNorm2d
from msgdas.search.gradients import AlphaStep, mean_backward
from msgdas.search.method import Method
from msgdas.subgraph import cut

__all__ = ["naive", "naive_net", "of_pytorch"]

_OF_PYTORCH = {
    AvgPool2x2: nn.AvgPool2d,
    AvgPool3x3: nn.AvgPool2d,
    BatchNorm2d: nn.BatchNorm2d,
    DenseConv2d: nn.Conv2d,
    DepthwiseConv2d: nn.Conv2d,
}


class _NaiveOp(MixedOp):
    def forward(self, x: Tensor) -> Tensor:
        assert self.gate is not None
        return reduce(add, [w * o(x) for w, o in zip(self.gate.weights, self.candidates, strict=True)])


class _NaiveInput(MixedInput):
    def forward(self, xs: Sequence[Tensor]) -> Tensor:
        return reduce(add, [edge(x) for edge, x in zip(self.candidates, xs, strict=True)])


def of_pytorch(net: nn.Module) -> nn.Module:
    """``net`` itself, with PyTorch's own operations where it had ours."""
    for module in net.modules():
        if type(module) in _OF_PYTORCH:
            module.__class__ = _OF_PYTORCH[type(module)]
    return net


def naive() -> Method:
    """DARTS of first order with all weight gradients in the alpha step too, and PyTorch's default SGD."""
    optimizer = partial(SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    return replace(darts(), hypergradient=_everything, weight_optimizer=optimizer)


def naive_net(net: nn.Module) -> nn.Module:
    """``net`` itself: contiguous, candidate by candidate, with PyTorch's own operations. Its edges are not searched."""
    net.to(memory_format=torch.contiguous_format)
    for module in net.modules():
        if isinstance(module, MixedOp) and module.searched:
            module.__class__ = _NaiveOp
        elif isinstance(module, MixedInput) and not module.searched:
            module.__class__ = _NaiveInput
    return of_pytorch(net)


def _everything(step: AlphaStep) -> None:
    leaves, push = cut(step.subgraphs)
    mean_backward(step.net, leaves, step.objective, scale=step.scale)
    push()
    step.net.zero_grad(set_to_none=True)
