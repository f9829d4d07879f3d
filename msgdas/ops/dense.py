"""Convolution over all channels, fast in training on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from msgdas.native import Strides, run, takes
from msgdas.ops.backward import wanted

__all__ = ["DenseConv2d"]

SIZE = 2**13  # numbers of a map, from which on the kernels pay
PIECE = 8  # channels are a multiple of it, as in winograd.c


class DenseConv2d(nn.Conv2d):
    """An odd square kernel, "same" padding, no bias: ``(B, c_in, H, W) → (B, c_out, ⌈H/stride⌉, ⌈W/stride⌉)``.

    With `msgdas.use_native` those of 3 × 3 and stride 1 are, in training, Winograd's (Lavin and Gray 2016,
    arXiv:1509.09308), in 0.45 to 0.8 of the time of PyTorch's own (benchmarks/operations.py), equal but for rounding.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(c_in, c_out, kernel, stride, kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if takes(x, SIZE) and self._of_winograd(x):
            output: Tensor = _Winograd.apply(x, self.weight)
            return output
        return super().forward(x)


    def _of_winograd(self, x: Tensor) -> bool:
        like, channels = self.weight, (self.out_channels, self.in_channels)
        return (
            self.training
            and (self.kernel_size, self.stride) == ((3, 3), (1, 1))
            and not any(each % PIECE for each in channels)
            and (x.shape[1], x.dtype, x.device) == (self.in_channels, like.dtype, like.device)
        )


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants = wanted(ctx, 0), wanted(ctx, 1)
        if torch.is_grad_enabled():  # to be differentiated again
            found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
                grad, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, (*wants, False)
            )
            return found[:2]
        grad = grad.contiguous(memory_format=torch.channels_last)
        of_input = _convolve(grad, weight.transpose(0, 1).flip(2, 3)) if wants[0] else None
        return of_input, _of_weight(grad, x, weight) if wants[1] else None


def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    y = torch.empty((len(x), len(weight), *x.shape[2:]), dtype=x.dtype, memory_format=torch.channels_last)
    _run("conv3x3", x, weight, x, weight, y)
    return y


def _of_weight(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    of_weight = torch.empty_like(weight)
    _run("conv3x3_of_weight", x, of_weight, x, grad, of_weight)
    return of_weight


def _run(kernel: str, x: Tensor, weight: Tensor, *tensors: Tensor) -> None:
    """For images like ``x``; the kernel is told how the weight lies in memory."""
    images, _, height, width = x.shape
    run(kernel, x.dtype, images, height, width, weight.shape[1], len(weight), Strides(*weight.stride()), *tensors)
