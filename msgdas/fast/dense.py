"""Twin of convolutions over all channels, by compiled kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from msgdas.fast.backward import Deferred, wanted
from msgdas.fast.native import Strides, empty_map, run, takes

__all__ = ["DenseConv2d"]

PIXELS = 2**7  # pixels of a batch: the kernels pay from here on
CHANNELS = 8  # the kernels take multiples of this; 3 × 3 kernels also fewer input channels, for images
PAIRS = 8  # input channels × output channels per pixel: transforming a 3 × 3 weight pays up to here


class DenseConv2d(nn.Conv2d):
    """An odd square kernel, "same" padding, no bias: ``(B, c_in, H, W) → (B, c_out, ⌈H/stride⌉, ⌈W/stride⌉)``.

    In training with `msgdas.fast.use_native`, 3 × 3 convolutions and 1 × 1 convolutions of stride 1 are computed by
    compiled kernels, which can include a ReLU before them. 3 × 3 with stride 1 uses Winograd's algorithm (Lavin and
    Gray 2016, arXiv:1509.09308). With fewer than eight input channels, as on images, only the forward has a kernel.
    """

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Whether the twin can stand for ``conv``."""
        (side, other), stride = conv.kernel_size, conv.stride
        same = side == other and side % 2 == 1 and conv.padding == (side // 2,) * 2 and stride[0] == stride[1]
        plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
        return same and plain and conv.bias is None

    def forward(self, x: Tensor) -> Tensor:
        if self.has_kernel(x):
            return self.native(x)
        return super().forward(x)

    def has_kernel(self, x: Tensor) -> bool:
        """Whether a kernel is in use and pays for ``x``."""
        like, wide = self.weight, self.kernel_size == (3, 3)
        pairs = self.in_channels * self.out_channels if wide else 0
        return (
            takes(x, max(PIXELS, pairs // PAIRS) * self.in_channels)
            and self.training
            and (wide or (self.kernel_size, self.stride) == ((1, 1), (1, 1)))
            and (self.in_channels % CHANNELS == 0 or (wide and self.in_channels < CHANNELS))
            and self.out_channels % CHANNELS == 0
            and (x.shape[1], x.dtype, x.device) == (self.in_channels, like.dtype, like.device)
        )

    def native(self, x: Tensor, *, relu: bool = False) -> Tensor:
        """The convolution by its kernel. ``relu``: of ``x.relu()``, without a pass over memory for the ReLU."""
        output: Tensor = _Native.apply(x, self.weight, self.stride[0], relu)
        return output


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, relu: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.relu = stride, relu
        ctx.image = x.shape[1] < CHANNELS
        ctx.defers, ctx.deferred = stride == 1 and not ctx.image, None
        if ctx.defers:
            return _convolve(x, weight, relu=relu)
        height, width = ((side - 1) // stride + 1 for side in x.shape[2:])
        y = empty_map((len(x), len(weight), height, width), x)
        _run("strided3x3", x, weight, stride, relu, x, weight, y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), stride, relu = ctx.saved_tensors, ctx.stride, ctx.relu
        deferred, ctx.deferred = ctx.deferred, None
        wants = wanted(ctx, 2)
        if ctx.image or torch.is_grad_enabled():  # to be differentiated again
            return *_differentiable(grad, x, weight, wants, stride, relu=relu), None, None
        grad = grad.contiguous(memory_format=torch.channels_last)
        of_input = _of_input(grad, x, weight, stride, deferred, relu=relu) if wants[0] else None
        return of_input, _of_weight(grad, x, weight, stride, relu=relu) if wants[1] else None, None, None


def _differentiable(
    grad: Tensor, x: Tensor, weight: Tensor, wants: Sequence[bool], stride: int, *, relu: bool
) -> tuple[Tensor | None, Tensor | None]:
    sides = [stride] * 2, [weight.shape[-1] // 2] * 2, [1, 1]
    of_input, of_weight, _ = torch.ops.aten.convolution_backward(
        grad, x.relu() if relu else x, weight, None, *sides, False, [0, 0], 1, (*wants, False)
    )
    return of_input * (x > 0) if relu and wants[0] else of_input, of_weight


def _convolve(
    x: Tensor,
    weight: Tensor,
    *,
    relu: bool = False,
    deferred: Deferred | None = None,
    of: Tensor | None = None,
    turned: bool = False,
) -> Tensor:
    """Convolution with stride 1.

    Args:
        relu: convolve ``x.relu()``.
        deferred: ``x`` is a gradient, to be completed on reading.
        turned: compute the input's gradient, ``x`` being the output's: a convolution with the rotated weight.
        of: with ``turned``, the input of a ReLU before the convolution, whose gradient is included.
    """
    images, c_in, height, width = x.shape
    at, strides, c_out = weight.data_ptr(), weight.stride(), len(weight)
    if turned:  # the channels change places, and the taps are read from the last one on, backwards
        into, out, down, right = strides
        strides, c_out = (out, into, -down, -right), weight.shape[1]
        at += weight.element_size() * (weight.shape[-1] - 1) * (down + right)
    y = empty_map((images, c_out, height, width), x)
    sides, read = (images, height, width, c_in, c_out), (relu, x, *(deferred or (None, None)))
    run(_name(weight), x.dtype, *sides, Strides(*strides), *read, at, of, y)
    return y


def _of_input(grad: Tensor, x: Tensor, weight: Tensor, stride: int, deferred: Deferred | None, *, relu: bool) -> Tensor:
    of = x if relu else None
    if stride == 1:
        return _convolve(grad, weight, deferred=deferred, of=of, turned=True)
    of_input = empty_map(x.shape, x)
    _run("strided3x3_of_input", x, weight, stride, grad, weight, of, of_input)
    return of_input


def _of_weight(grad: Tensor, x: Tensor, weight: Tensor, stride: int, *, relu: bool) -> Tensor:
    of_weight = torch.empty_like(weight)
    if stride == 1:
        _run(f"{_name(weight)}_of_weight", x, of_weight, relu, x, grad, of_weight)
    else:
        _run("strided3x3_of_weight", x, of_weight, stride, relu, x, grad, of_weight)
    return of_weight


def _name(weight: Tensor) -> str:
    return f"conv{weight.shape[-1]}x{weight.shape[-1]}"


def _run(kernel: str, x: Tensor, weight: Tensor, *arguments: object) -> None:
    """Call a kernel for images like ``x``, with the strides of ``weight``."""
    images, _, height, width = x.shape
    c_out, c_in = weight.shape[:2]
    run(kernel, x.dtype, images, height, width, c_in, c_out, Strides(*weight.stride()), *arguments)
