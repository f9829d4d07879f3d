"""Average poolings, fast in training on the CPU."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["AvgPool2x2", "AvgPool3x3"]


class AvgPool3x3(nn.AvgPool2d):
    """Mean of the 3 × 3 pixels around one, of those that lie on the map: ``(B, C, H, W) → (B, C, ⌈H/stride⌉, …)``.

    In training on a CPU one of stride 1 is a depthwise convolution with ones, 1.7 to 4 times as fast on maps of 16
    pixels and more as PyTorch's own pooling (benchmarks/operations.py), equal but for rounding.
    Elsewhere it is that one.
    """

    def __init__(self, stride: int = 1) -> None:
        super().__init__(3, stride, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1 and self.training and _known(x):
            output: Tensor = _ByConvolution.apply(x)
            return output
        return super().forward(x)


class AvgPool2x2(nn.AvgPool2d):
    """Mean of 2 × 2 pixels: ``(B, C, H, W) → (B, C, ⌊H/2⌋, ⌊W/2⌋)``.

    In training on a CPU the forward of an even map is two sums of its halves, which take 0.2 to 0.7 of the time of
    PyTorch's own pooling (benchmarks/operations.py), equal but for rounding. Elsewhere it is that one.
    """

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and _known(x) and x.shape[2] % 2 == x.shape[3] % 2 == 0:
            output: Tensor = _ByHalves.apply(x)
            return output
        return super().forward(x)


def _known(x: Tensor) -> bool:
    known = x.device.type == "cpu" and x.dim() == 4 and x.dtype in (torch.float32, torch.float64)
    return known and not torch.is_autocast_enabled("cpu")


class _ByHalves(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x[:, :, ::2] + x[:, :, 1::2]
        return (x[..., ::2] + x[..., 1::2]).mul_(0.25)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return F.interpolate(grad * 0.25, scale_factor=2.0)


class _ByConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _sums(x).mul_(_shares(*x.shape[2:], x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _sums(grad * _shares(*grad.shape[2:], grad.dtype))


def _sums(x: Tensor) -> Tensor:
    """Of the 3 × 3 pixels around each."""
    return F.conv2d(x, _ones(x.shape[1], x.dtype), None, 1, 1, 1, x.shape[1])


@lru_cache
def _ones(channels: int, dtype: torch.dtype) -> Tensor:
    return torch.ones(channels, 1, 3, 3, dtype=dtype)


@lru_cache
def _shares(height: int, width: int, dtype: torch.dtype) -> Tensor:
    """One over the number of pixels that each window has on the map, ``(1, 1, H, W)``."""
    return _sums(torch.ones(1, 1, height, width, dtype=dtype)).reciprocal()
