"""Convolutions with their activation and normalisation. ``(B, c_in, H, W) → (B, c_out, ⌈H/stride⌉, ⌈W/stride⌉)``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["FactorizedReduce", "conv", "depthwise_conv", "dil_conv", "relu_conv_bn", "sep_conv", "wide_conv"]


def conv(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution with an odd square kernel, "same" padding and no bias."""
    return nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)


def depthwise_conv(channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """One odd square kernel per channel, "same" padding, no bias."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False)


def relu_conv_bn(c_in: int, c_out: int, kernel: int, stride: int = 1, *, affine: bool = True) -> nn.Sequential:
    """ReLU, convolution without bias, BatchNorm; "same" padding."""
    return nn.Sequential(
        nn.ReLU(),  # never in place: other candidates and edges share the input
        conv(c_in, c_out, kernel, stride),
        nn.BatchNorm2d(c_out, affine=affine),
    )


def dil_conv(channels: int, kernel: int, stride: int = 1, *, dilation: int = 2, affine: bool = True) -> nn.Sequential:
    """ReLU, depthwise convolution, 1 × 1 convolution, BatchNorm; DARTS's ``dil_conv`` has dilation 2."""
    return nn.Sequential(
        nn.ReLU(),
        depthwise_conv(channels, kernel, stride, dilation),
        conv(channels, channels, 1),
        nn.BatchNorm2d(channels, affine=affine),
    )


def sep_conv(channels: int, kernel: int, stride: int = 1, *, affine: bool = True) -> nn.Sequential:
    """Separable convolution, applied twice as in DARTS and NASNet; only the first one has the stride."""
    return nn.Sequential(
        *dil_conv(channels, kernel, stride, dilation=1, affine=affine),
        *dil_conv(channels, kernel, dilation=1, affine=affine),
    )


def wide_conv(channels: int, kernel: int, stride: int = 1, *, affine: bool = True) -> nn.Sequential:
    """ReLU, a 1 × k and a k × 1 convolution, BatchNorm (``conv_7x1_1x7`` of AmoebaNet)."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, kernel), (1, stride), (0, kernel // 2), bias=False),
        nn.Conv2d(channels, channels, (kernel, 1), (stride, 1), (kernel // 2, 0), bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


class FactorizedReduce(nn.Module):
    """A skip connection of stride 2: two 1 × 1 convolutions side by side, the second shifted by one pixel (DARTS).

    Args:
        c_out: even. Odd feature maps are padded with a row and a column of zeros, so that their size rounds up as
            everywhere else.
    """

    def __init__(self, c_in: int, c_out: int, *, affine: bool = True) -> None:
        super().__init__()
        self.first = conv(c_in, c_out // 2, 1)
        self.second = conv(c_in, c_out // 2, 1)
        self.norm = nn.BatchNorm2d(c_out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x, (height, width) = x.relu(), x.shape[2:]
        if height % 2 or width % 2:
            x = F.pad(x, (0, width % 2, 0, height % 2))
        # Slice, then convolve with stride 1: in channels_last on a CPU, the backward of a strided 1 x 1 convolution
        # with few channels writes out of bounds and kills the process (PyTorch 2.14.1, 4 -> 2 channels, 56 x 56).
        return self.norm(torch.cat([self.first(x[:, :, ::2, ::2]), self.second(x[:, :, 1::2, 1::2])], 1))
