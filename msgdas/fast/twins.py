"""`speed_up`: swap the modules of a network for faster twins.

A twin is a subclass of a module's class that overrides ``forward`` (or ``combine``) and adds no state. To swap a module
is to assign its ``__class__``: the object stays, and with it its Parameters, buffers, hooks, names and ``state_dict``.

To add a twin, write the subclass and add a line to `_TWINS`: the class, its twin, and a function that says which
modules of the class the twin can stand for. Rules:

- Values, gradients and running statistics equal those of the original up to rounding; a gradient that is None stays
  None. ``tests/fast/test_law.py`` checks this for every space and method.
- No attributes of its own. The class is all that `slow_down` changes back, and a copy must work as the original does.
- Where it cannot help (device, dtype, evaluation, small inputs, autocast, ``torch.compile``) call ``super().forward``.
- Modules with hooks must be called: ask `msgdas.fast.private.hooked` before skipping a call.
- If its backward cannot be differentiated again, fall back to PyTorch's operations there.
"""

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
from msgdas.fast.sums import dense_gradient, inner
from msgdas.spaces.darts import CellModule
from msgdas.spaces.nasbench201 import Cell, Reduction

__all__ = ["slow_down", "speed_up"]


def speed_up(net: nn.Module) -> Callable[[], None]:
    """Make a network faster, in place.

    Swaps modules for twins that compute the same up to rounding: values, gradients and running statistics. Parameters,
    buffers, hooks, names and ``state_dict`` stay the same. Only modules of exactly a class with a twin are swapped, not
    those of your subclasses. A copy of a fast network is fast. `msgdas.discretize` adds new modules: call this again on
    its result.

    Returns:
        A function that swaps the modules back (`slow_down`). Call it before you pickle or export the network.

    Examples:
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
    """Undo `speed_up`: give every twin in ``net`` its original class."""
    for module in net.modules():
        for kind, twin, _ in _TWINS:
            if type(module) is twin:
                module.__class__ = kind


class _FastMixedOp(MixedOp):
    inner = staticmethod(inner)

    def combine(self, terms: Sequence[Term]) -> Tensor:
        # Recomputation runs this again in backward, after the cell's `sharing` has ended: share nothing with the cell.
        with sharing() if self.recompute else nullcontext():
            result = combine(terms)
        return _with_dense_gradient(result) if len(terms) > 1 else result


class _SumOfEdges:
    def combine(self, terms: Sequence[Term]) -> Tensor:
        return _with_dense_gradient(combine(terms))


class _FastMixedInput(_SumOfEdges, MixedInput):
    inner = staticmethod(inner)


class _FastKeptInputs(_SumOfEdges, KeptInputs):
    pass


class _FastReduction(Reduction):
    combine = staticmethod(combine)


class _FastCell(Cell):
    combine = staticmethod(combine)

    def output(self, x: Tensor) -> Tensor:  # not forward: what is recomputed shares again
        with sharing():
            return super().output(x)


class _FastCellModule(CellModule):
    def output(self, s0: Tensor, s1: Tensor) -> Tensor:
        with sharing():
            return super().output(s0, s1)


def _with_dense_gradient(y: Tensor) -> Tensor:
    """Return ``y``. In backward, make its gradient dense: nodes are concatenated, so theirs is a slice."""
    if y.requires_grad:
        y.register_hook(dense_gradient)  # type: ignore[no-untyped-call]
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
    (MixedOp, _FastMixedOp, _always),
    (MixedInput, _FastMixedInput, _always),
    (KeptInputs, _FastKeptInputs, _always),
    (Cell, _FastCell, _always),
    (Reduction, _FastReduction, _always),
    (CellModule, _FastCellModule, _always),
)
"""A class, its twin, and a function ``module -> bool``: whether the twin can stand for this module."""
