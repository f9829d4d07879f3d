"""Convolution over all channels, fast in training on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from msgdas.native import Strides, run, takes
from msgdas.ops.backward import wanted

__all__ = ["DenseConv2d"]

SIZE = 2**13  # numbers of a map, from which on they pay
CHANNELS = 8  # of which they take multiples


class DenseConv2d(nn.Conv2d):
    """An odd square kernel, "same" padding, no bias: ``(B, c_in, H, W) → (B, c_out, ⌈H/stride⌉, ⌈W/stride⌉)``.

    With `msgdas.use_native` those of stride 1 and 1 × 1 or 3 × 3 are, in training, a compiled kernel's, the latter
    Winograd's (Lavin and Gray 2016, arXiv:1509.09308): in 0.3 to 0.9 of the time of PyTorch's own
    (benchmarks/operations.py), equal but for rounding.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(c_in, c_out, kernel, stride, kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if takes(x, SIZE) and self._has_kernel(x):
            output: Tensor = _Native.apply(x, self.weight)
            return output
        return super().forward(x)

    def _has_kernel(self, x: Tensor) -> bool:
        like = self.weight
        return (
            self.training
            and self.kernel_size in ((1, 1), (3, 3))
            and self.stride == (1, 1)
            and self.in_channels % CHANNELS == self.out_channels % CHANNELS == 0
            and (x.shape[1], x.dtype, x.device) == (self.in_channels, like.dtype, like.device)
        )


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants = wanted(ctx, 0), wanted(ctx, 1)
        if torch.is_grad_enabled():  # to be differentiated again
            padding = [weight.shape[-1] // 2] * 2
            found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
                grad, x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], 1, (*wants, False)
            )
            return found[:2]
        grad = grad.contiguous(memory_format=torch.channels_last)
        of_input = _convolve(grad, weight.transpose(0, 1).flip(2, 3)) if wants[0] else None
        return of_input, _of_weight(grad, x, weight) if wants[1] else None


def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    y = torch.empty((len(x), len(weight), *x.shape[2:]), dtype=x.dtype, memory_format=torch.channels_last)
    _run("", x, weight, x, weight, y)
    return y


def _of_weight(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    of_weight = torch.empty_like(weight)
    _run("_of_weight", x, of_weight, x, grad, of_weight)
    return of_weight


def _run(what: str, x: Tensor, weight: Tensor, *tensors: Tensor) -> None:
    """The kernel for images like ``x``, which is told how the weight lies in memory."""
    images, _, height, width = x.shape
    c_out, c_in, side, _ = weight.shape
    run(f"conv{side}x{side}{what}", x.dtype, images, height, width, c_in, c_out, Strides(*weight.stride()), *tensors)
