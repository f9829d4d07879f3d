"""Twin of depthwise convolutions, with a faster backward on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msgdas.fast.backward import wanted
from msgdas.fast.native import Window, run, takes

__all__ = ["DepthwiseConv2d"]

PIXELS = 2**12  # pixels of a batch: shifted products pay from here on
NATIVE_PIXELS = 2**7  # pixels of a batch: the kernel pays from here on


class DepthwiseConv2d(nn.Conv2d):
    """One odd square kernel per channel, "same" padding, no bias: ``nn.Conv2d`` with ``groups = channels``.

    The forward is PyTorch's. On a CPU, the gradients of a dilated convolution that has a stride or is wider than the
    map come from a forward convolution and shifted products. With `msgdas.fast.use_native`, the gradients of all
    convolutions that reach further than three pixels come from a compiled kernel.
    """

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Whether the twin can stand for ``conv``."""
        (side, other), (stride, right), (dilation, across) = conv.kernel_size, conv.stride, conv.dilation
        square = side == other and side % 2 == 1 and stride == right and dilation == across
        same = conv.padding == (dilation * (side // 2),) * 2 and conv.padding_mode == "zeros" and conv.bias is None
        return square and same and conv.groups == conv.in_channels == conv.out_channels > 1

    def forward(self, x: Tensor) -> Tensor:
        wide = self.dilation[0] * (self.kernel_size[0] - 1) > 2
        if wide and torch.is_grad_enabled() and takes(x, NATIVE_PIXELS * x.shape[1]):
            made: Tensor = _Native.apply(x, self.weight, self.stride[0], self.dilation[0])
            return made
        if self._pays(x) and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
            output: Tensor = _Dilated.apply(x, self.weight, self.stride[0], self.dilation[0])
            return output
        return super().forward(x)

    def _pays(self, x: Tensor) -> bool:
        if self.dilation[0] == 1 or x.device.type != "cpu" or x.dim() != 4 or x.numel() < PIXELS * x.shape[1]:
            return False
        return self.stride[0] > 1 or self.dilation[0] * (self.kernel_size[0] - 1) >= x.shape[-1]


class _Dilated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.dilation = stride, dilation
        return F.conv2d(x, weight, None, stride, _padding(weight, dilation), dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants = wanted(ctx, 2)
        of_input = _of_input(grad, x, weight, ctx.stride, ctx.dilation) if wants[0] else None
        of_weight = _of_weight(grad, x, weight, ctx.stride, ctx.dilation) if wants[1] else None
        return of_input, of_weight, None, None


class _Native(_Dilated):
    """Like `_Dilated`, with the backward by a compiled kernel."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants = *wanted(ctx, 2), False
        if torch.is_grad_enabled():  # to be differentiated again
            sides = [ctx.stride] * 2, [_padding(weight, ctx.dilation)] * 2, [ctx.dilation] * 2
            found = torch.ops.aten.convolution_backward(
                grad, x, weight, None, *sides, False, [0, 0], len(weight), wants
            )
            return found[0], found[1], None, None
        grad = grad.contiguous(memory_format=torch.channels_last)
        of_x, of_weight = (torch.empty_like(each) if want else None for each, want in zip((x, weight), wants))
        images, channels, height, width = x.shape
        run(
            "depthwise_backward",
            x.dtype,
            images,
            height,
            width,
            channels,
            Window(weight.shape[-1], ctx.stride, ctx.dilation),
            grad,
            x,
            weight,
            of_x,
            of_weight,
        )
        return of_x, of_weight, None, None


def _padding(weight: Tensor, dilation: int) -> int:
    return dilation * (weight.shape[-1] // 2)


def _of_input(grad: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """The output's gradient, spread to the input's size and convolved with the rotated kernel."""
    if stride > 1:
        spread = torch.zeros_like(x, dtype=grad.dtype)
        spread[:, :, ::stride, ::stride] = grad
        grad = spread
    return F.conv2d(grad, weight.flip(2, 3), None, 1, _padding(weight, dilation), dilation, len(weight))


def _of_weight(grad: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """For each tap of the kernel, the inner product of the gradient and the shifted input."""
    kernel, pad = weight.shape[-1], _padding(weight, dilation)
    inner = F.pad(x, (pad,) * 4).permute(0, 2, 3, 1)
    last = grad.permute(0, 2, 3, 1)
    height, width = last.shape[1:3]
    taps = [
        (inner[:, i : i + stride * height : stride, j : j + stride * width : stride] * last).sum((0, 1, 2))
        for i in range(0, kernel * dilation, dilation)
        for j in range(0, kernel * dilation, dilation)
    ]
    return torch.stack(taps, 1).view_as(weight)
