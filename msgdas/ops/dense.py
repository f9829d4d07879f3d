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
        if self.has_kernel(x):
            return self.native(x)
        return super().forward(x)

    def has_kernel(self, x: Tensor) -> bool:
        """Whether one is in use and pays for ``x``."""
        like = self.weight
        return (
            takes(x, SIZE)
            and self.training
            and self.kernel_size in ((1, 1), (3, 3))
            and self.stride == (1, 1)
            and self.in_channels % CHANNELS == self.out_channels % CHANNELS == 0
            and (x.shape[1], x.dtype, x.device) == (self.in_channels, like.dtype, like.device)
        )

    def native(self, x: Tensor, *, relu: bool = False) -> Tensor:
        """By the kernel that it has; ``relu``: of ``x.relu()``, which costs no pass over memory of its own."""
        output: Tensor = _Native.apply(x, self.weight, relu)
        return output


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, relu: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.relu = relu
        return _convolve(x, weight, relu=relu)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants = wanted(ctx, 0), wanted(ctx, 1)
        if torch.is_grad_enabled():  # to be differentiated again
            return *_differentiable(grad, x, weight, wants, relu=ctx.relu), None
        grad = grad.contiguous(memory_format=torch.channels_last)
        turned = weight.transpose(0, 1).flip(2, 3)
        of_input = _convolve(grad, turned, of=x if ctx.relu else None) if wants[0] else None
        return of_input, _of_weight(grad, x, weight, relu=ctx.relu) if wants[1] else None, None


def _differentiable(
    grad: Tensor, x: Tensor, weight: Tensor, wants: tuple[bool, bool], *, relu: bool
) -> tuple[Tensor | None, Tensor | None]:
    padding = [weight.shape[-1] // 2] * 2
    of_input, of_weight, _ = torch.ops.aten.convolution_backward(
        grad, x.relu() if relu else x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], 1, (*wants, False)
    )
    return of_input * (x > 0) if relu and wants[0] else of_input, of_weight


def _convolve(x: Tensor, weight: Tensor, *, relu: bool = False, of: Tensor | None = None) -> Tensor:
    """``of``: what the ReLU was of, where this is the gradient of its convolution."""
    y = torch.empty((len(x), len(weight), *x.shape[2:]), dtype=x.dtype, memory_format=torch.channels_last)
    _run("", x, weight, relu, x, weight, of, y)
    return y


def _of_weight(grad: Tensor, x: Tensor, weight: Tensor, *, relu: bool) -> Tensor:
    of_weight = torch.empty_like(weight)
    _run("_of_weight", x, of_weight, relu, x, grad, of_weight)
    return of_weight


def _run(what: str, x: Tensor, weight: Tensor, *arguments: object) -> None:
    """The kernel for images like ``x``, which is told how the weight lies in memory."""
    images, _, height, width = x.shape
    c_out, c_in, side, _ = weight.shape
    run(f"conv{side}x{side}{what}", x.dtype, images, height, width, c_in, c_out, Strides(*weight.stride()), *arguments)
