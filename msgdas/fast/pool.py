"""Twins of average poolings, faster in training on the CPU."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msgdas.fast.native import empty_map, run, takes

__all__ = ["AvgPool2x2", "AvgPool3x3"]

PIXELS = 2**13  # pixels of a batch: pooling by a convolution pays from here on
LINE = 16  # channels per cache line
SIZE = 2**14  # numbers in a map: the kernels pay from here on
CHANNELS = 8  # the 2 × 2 kernel takes multiples of these


class AvgPool3x3(nn.AvgPool2d):
    """Twin of the 3 × 3 average pooling of stride 1 that ignores padding: ``(B, C, H, W) → (B, C, H, W)``.

    In training on a CPU, for batches with many pixels, it is a depthwise convolution with ones, or with
    `msgdas.fast.use_native` a compiled kernel.
    """

    @staticmethod
    def fits(pool: nn.AvgPool2d) -> bool:
        """Whether the twin can stand for ``pool``."""
        sides = *_pair(pool.kernel_size), *_pair(pool.stride), *_pair(pool.padding)
        return sides == (3, 3, 1, 1, 1, 1) and not (pool.ceil_mode or pool.count_include_pad or pool.divisor_override)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and (takes(x, SIZE) or _pays(x)):
            output: Tensor = _Pooled.apply(x)
            return output
        return super().forward(x)


class AvgPool2x2(nn.AvgPool2d):
    """Twin of the 2 × 2 average pooling of stride 2: ``(B, C, H, W) → (B, C, ⌊H/2⌋, ⌊W/2⌋)``.

    In training with `msgdas.fast.use_native`, maps with even sides go to a compiled kernel.
    """

    @staticmethod
    def fits(pool: nn.AvgPool2d) -> bool:
        """Whether the twin can stand for ``pool``."""
        sides = *_pair(pool.kernel_size), *_pair(pool.stride), *_pair(pool.padding)
        return sides == (2, 2, 2, 2, 0, 0) and not (pool.ceil_mode or pool.divisor_override)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and takes(x, SIZE) and _halves(x.shape):
            output: Tensor = _Halved.apply(x)
            return output
        return super().forward(x)


def _pair(sides: int | tuple[int, int]) -> tuple[int, int]:
    return (sides, sides) if isinstance(sides, int) else sides


def _halves(shape: torch.Size) -> bool:
    return shape[1] % CHANNELS == shape[2] % 2 == shape[3] % 2 == 0


class _Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        images, channels, height, width = x.shape
        return _by_kernel("pool2x2", x, empty_map((images, channels, height // 2, width // 2), x), turned=False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # to be differentiated again
            return F.interpolate(grad, scale_factor=2.0) / 4
        images, channels, height, width = grad.shape
        of_input = empty_map((images, channels, 2 * height, 2 * width), grad)
        return _by_kernel("pool2x2", grad.contiguous(memory_format=torch.channels_last), of_input, turned=True)


def _pays(x: Tensor) -> bool:
    known = x.device.type == "cpu" and x.dim() == 4 and x.dtype in (torch.float32, torch.float64)
    known = known and not torch.compiler.is_compiling()
    return known and x.numel() >= PIXELS * x.shape[1] and not torch.is_autocast_enabled("cpu")


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        if takes(x, 0):
            return _by_kernel("pool3x3", x, torch.empty_like(x), turned=False)
        return _sums(x).mul_(_shares(*x.shape[1:], x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        if takes(grad, 0) and not torch.is_grad_enabled():  # not to be differentiated again
            return _by_kernel("pool3x3", grad, torch.empty_like(grad), turned=True)
        return _sums(grad * _shares(*grad.shape[1:], grad.dtype))


def _by_kernel(kernel: str, x: Tensor, y: Tensor, *, turned: bool) -> Tensor:
    """Fill ``y`` with the pooled ``x``. ``turned``: with the input's gradient, ``x`` being the output's."""
    images, channels, height, width = (y if turned else x).shape
    run(kernel, x.dtype, images, height, width, channels, turned, x, y)
    return y


def _sums(x: Tensor) -> Tensor:
    """The sum of the 3 × 3 pixels around each pixel."""
    return F.conv2d(x, _ones(x.shape[1], x.dtype), None, 1, 1, 1, x.shape[1])


@lru_cache
def _ones(channels: int, dtype: torch.dtype) -> Tensor:
    return torch.ones(channels, 1, 3, 3, dtype=dtype)


@lru_cache
def _shares(channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """1 / the number of pixels of each window that lie on the map, ``(1, 1 or C, H, W)``.

    Repeated for few channels, because multiplying them is faster without broadcasting.
    """
    shares = _sums(torch.ones(1, 1, height, width, dtype=dtype)).reciprocal()
    repeated = shares.expand(-1, channels if channels < LINE else 1, -1, -1)
    return repeated.contiguous(memory_format=torch.channels_last)
