"""`speed_up`: swap the modules of a network for faster twins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn

from msgdas.choice import MixedInput, MixedOp, Term
from msgdas.discretize import KeptInputs
from msgdas.fast.combine import Sequential, combine, sharing
from msgdas.fast.dense import DenseConv2d
from msgdas.fast.depthwise import DepthwiseConv2d
from msgdas.fast.norm import BatchNorm2d
from msgdas.fast.pool import AvgPool2x2, AvgPool3x3
from msgdas.fast.sums import dense, inner
from msgdas.spaces.darts import CellModule
from msgdas.spaces.nasbench201 import Cell, Reduction

__all__ = ["slow_down", "speed_up"]


def speed_up(net: nn.Module) -> Callable[[], None]:
    """Make the same network faster, in place.

    Modules are swapped for twins by their class alone: a twin is a subclass with a faster ``forward`` (or ``combine``)
    and no state of its own, so Parameters, buffers, hooks, names and ``state_dict`` stay what they are. Values,
    gradients and running statistics are equal up to rounding. Modules of other classes, subclasses included, stay as
    they are. A copy of the network is as fast as the network.

    Returns:
        A function that undoes it (`slow_down`). Call it before the network itself is pickled or exported.

    Example:
        >>> undo = speed_up(net)
        >>> genotype = fit(Search(net, method), data, epochs=20)
        >>> undo()
    """
    for module in net.modules():
        for kind, twin, fits in _TWINS:
            if type(module) is kind and fits(module):
                module.__class__ = twin
                break
    return partial(slow_down, net)


def slow_down(net: nn.Module) -> None:
    """Swap the twins in ``net`` back for the original modules."""
    for module in net.modules():
        for kind, twin, _ in _TWINS:
            if type(module) is twin:
                module.__class__ = kind


class _Op(MixedOp):
    inner = staticmethod(inner)

    def combine(self, terms: Sequence[Term]) -> Tensor:
        # recomputation runs it again when the cell that would share has ended: so it shares nothing with the cell
        with sharing() if self.recompute else nullcontext():
            result = combine(terms)
        return _with_dense_gradient(result) if len(terms) > 1 else result


class _Node:
    def combine(self, terms: Sequence[Term]) -> Tensor:
        return _with_dense_gradient(combine(terms))


class _Input(_Node, MixedInput):
    inner = staticmethod(inner)


class _Kept(_Node, KeptInputs):
    pass


class _Reduction(Reduction):
    combine = staticmethod(combine)


class _Cell(Cell):
    combine = staticmethod(combine)

    def forward(self, x: Tensor) -> Tensor:
        with sharing():
            return super().forward(x)


class _CellModule(CellModule):
    def forward(self, s0: Tensor, s1: Tensor) -> Tensor:
        with sharing():
            return super().forward(s0, s1)


def _with_dense_gradient(y: Tensor) -> Tensor:
    """``y``, whose gradient is made dense if it is a part of a concatenation's."""
    if y.requires_grad:
        y.register_hook(dense)  # type: ignore[no-untyped-call]
    return y


def _always(module: Any) -> bool:
    return True


_TWINS: tuple[tuple[type[nn.Module], type[nn.Module], Callable[[Any], bool]], ...] = (
    (nn.Conv2d, DenseConv2d, DenseConv2d.fits),
    (nn.Conv2d, DepthwiseConv2d, DepthwiseConv2d.fits),
    (nn.BatchNorm2d, BatchNorm2d, _always),
    (nn.AvgPool2d, AvgPool3x3, AvgPool3x3.fits),
    (nn.AvgPool2d, AvgPool2x2, AvgPool2x2.fits),
    (nn.Sequential, Sequential, _always),
    (MixedOp, _Op, _always),
    (MixedInput, _Input, _always),
    (KeptInputs, _Kept, _always),
    (Cell, _Cell, _always),
    (Reduction, _Reduction, _always),
    (CellModule, _CellModule, _always),
)
"""Class, its twin, and whether the twin can stand for a module of the class."""
