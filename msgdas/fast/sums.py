"""Weighted sums of feature maps, in few passes over memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from msgdas.fast.backward import wanted

__all__ = ["dense_gradient", "inner", "plus", "times"]


def plus(total: Tensor | None, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """``total + weight · y``, written into ``total`` if shapes and dtypes match.

    Args:
        total: the sum so far; None: nothing yet.
        weight: a scalar; None: 1.
    """
    if total is not None and (total.shape, total.dtype) != (y.shape, y.dtype):
        return total + plus(None, y, weight)
    if weight is None:
        return y if total is None else total.add_(y)
    if weight.requires_grad and torch.is_grad_enabled():
        result: Tensor = _Weighted.apply(y, weight, total)
        return result
    return weight * y if total is None else total.addcmul_(y, weight)


class _Weighted(torch.autograd.Function):
    """``total += weight · y``. The backward computes the gradient of the weight as an inner product; PyTorch's own
    writes the whole map ``∂L/∂y · y`` first."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, weight: Tensor, total: Tensor | None) -> Tensor:
        ctx.save_for_backward(y, weight)
        if total is None:
            return weight * y
        ctx.mark_dirty(total)
        return total.addcmul_(y, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, weight = ctx.saved_tensors
        wants = wanted(ctx, 2)
        of_y = grad * weight if wants[0] else None
        of_weight = inner(grad, y).to(weight.dtype) if wants[1] else None
        return of_y, of_weight, grad if ctx.needs_input_grad[2] else None


def times(weight: Tensor, y: Tensor) -> Tensor:
    """``weight · y``, without a copy if the weight is exactly 1, as the gate of a single path is.

    Only on a CPU: elsewhere looking at the weight would wait for the device.
    """
    if weight.device.type == "cpu" and weight.item() == 1 and weight.requires_grad and torch.is_grad_enabled():
        product: Tensor = _Unit.apply(y, weight)
        return product
    return plus(None, y, weight)


class _Unit(torch.autograd.Function):
    """``weight · y`` for a weight of 1."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(y, weight)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, weight = ctx.saved_tensors
        wants = wanted(ctx, 2)
        of_y = (grad * weight if torch.is_grad_enabled() else grad) if wants[0] else None  # may be differentiated again
        return of_y, inner(grad, y).to(weight.dtype) if wants[1] else None


def inner(a: Tensor, b: Tensor) -> Tensor:
    """``Σ a · b`` in float32 or better; without writing the product if both have the same memory layout."""
    precision = torch.promote_types(a.dtype, torch.float32)
    if a.dtype == b.dtype == precision and a.stride() == b.stride() and _in_one_piece(a):
        flat = (a.numel(),), (1,)
        return torch.dot(a.as_strided(*flat), b.as_strided(*flat))
    return (a * b).sum(dtype=precision)


def dense_gradient(grad: Tensor) -> Tensor:
    """``grad``, copied if it is a slice of a larger tensor, as the gradients of concatenated tensors are.

    On such slices the backward of a BatchNorm takes 10 to 25 times as long (PyTorch 2.14.1, CPU, channels_last).
    """
    return grad if _in_one_piece(grad) else grad.clone()


def _in_one_piece(tensor: Tensor) -> bool:
    """Whether the tensor fills its memory without gaps, contiguous or in channels_last."""
    return tensor.is_contiguous() or (tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last))
