"""Convolutions with their activation and normalisation."""

from __future__ import annotations

from torch import nn

__all__ = ["relu_conv_bn"]


def relu_conv_bn(c_in: int, c_out: int, kernel: int, stride: int = 1, *, affine: bool = True) -> nn.Sequential:
    """ReLU, convolution without bias, BatchNorm; "same" padding. ``(B, c_in, H, W) → (B, c_out, ⌈H/s⌉, ⌈W/s⌉)``."""
    return nn.Sequential(
        nn.ReLU(),  # never in place: the input is shared by the other candidates and edges
        nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(c_out, affine=affine),
    )
