"""The operations of cells by their published names: those of the NASNet family, and RobustDARTS's ``noise``."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from msgdas.ops.conv import FactorizedReduce, dil_conv, sep_conv, wide_conv
from msgdas.ops.skip import Noise, Zero

__all__ = ["OPERATIONS", "avg_pool_3x3"]


def avg_pool_3x3(stride: int = 1) -> nn.AvgPool2d:
    """The mean of the 3 × 3 pixels around each one, leaving out those beyond the border."""
    return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)


OPERATIONS: dict[str, Callable[[int, int, bool], nn.Module]] = {  # (channels, stride, affine BatchNorm) → module
    "none": lambda c, stride, affine: Zero(stride),
    "max_pool_3x3": lambda c, stride, affine: nn.MaxPool2d(3, stride, padding=1),
    "avg_pool_3x3": lambda c, stride, affine: avg_pool_3x3(stride),
    "skip_connect": lambda c, stride, affine: nn.Identity() if stride == 1 else FactorizedReduce(c, c, affine=affine),
    "sep_conv_3x3": lambda c, stride, affine: sep_conv(c, 3, stride, affine=affine),
    "sep_conv_5x5": lambda c, stride, affine: sep_conv(c, 5, stride, affine=affine),
    "sep_conv_7x7": lambda c, stride, affine: sep_conv(c, 7, stride, affine=affine),
    "dil_conv_3x3": lambda c, stride, affine: dil_conv(c, 3, stride, affine=affine),
    "dil_conv_5x5": lambda c, stride, affine: dil_conv(c, 5, stride, affine=affine),
    "conv_7x1_1x7": lambda c, stride, affine: wide_conv(c, 7, stride, affine=affine),
    "noise": lambda c, stride, affine: Noise(stride),
}
