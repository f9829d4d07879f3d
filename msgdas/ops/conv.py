"""Convolutions with their activation and normalisation. ``(B, c_in, H, W) → (B, c_out, ⌈H/stride⌉, ⌈W/stride⌉)``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msgdas.fast.dense import DenseConv2d
from msgdas.fast.depthwise import DepthwiseConv2d
from msgdas.fast.norm import BatchNorm2d

__all__ = ["FactorizedReduce", "dil_conv", "relu_conv_bn", "sep_conv", "wide_conv"]


def relu_conv_bn(c_in: int, c_out: int, kernel: int, stride: int = 1, *, affine: bool = True) -> nn.Sequential:
    """ReLU, convolution without bias, BatchNorm; "same" padding."""
    return nn.Sequential(
        nn.ReLU(),  # never in place: the input is shared by the other candidates and edges
        DenseConv2d(c_in, c_out, kernel, stride),
        BatchNorm2d(c_out, affine=affine),
    )


def dil_conv(channels: int, kernel: int, stride: int = 1, *, dilation: int = 2, affine: bool = True) -> nn.Sequential:
    """ReLU, depthwise convolution, 1 × 1 convolution, BatchNorm; dilated by 2 in DARTS's ``dil_conv``."""
    return nn.Sequential(
        nn.ReLU(),
        DepthwiseConv2d(channels, kernel, stride, dilation),
        DenseConv2d(channels, channels, 1),
        BatchNorm2d(channels, affine=affine),
    )


def sep_conv(channels: int, kernel: int, stride: int = 1, *, affine: bool = True) -> nn.Sequential:
    """Separable convolution, applied twice as in DARTS and NASNet; the stride is the first one's."""
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
        BatchNorm2d(channels, affine=affine),
    )


class FactorizedReduce(nn.Module):
    """A skip connection of stride 2: two 1 × 1 convolutions, the second one pixel further, side by side (DARTS).

    Every other pixel is taken before the convolution and not by its stride: in channels_last the backward of a strided
    1 × 1 convolution of few channels writes where it must not and ends the process (PyTorch 2.14.1 on a CPU: 4 → 2
    channels on 56 × 56 pixels).

    Args:
        c_out: even. Odd maps get a row and a column of zeros, so that they are halved upwards as by the others.
    """

    def __init__(self, c_in: int, c_out: int, *, affine: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv2d(c_in, c_out // 2, 1, bias=False)
        self.second = nn.Conv2d(c_in, c_out // 2, 1, bias=False)
        self.norm = BatchNorm2d(c_out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x, (height, width) = x.relu(), x.shape[2:]
        if height % 2 or width % 2:
            x = F.pad(x, (0, width % 2, 0, height % 2))
        return self.norm(torch.cat([self.first(x[:, :, ::2, ::2]), self.second(x[:, :, 1::2, 1::2])], 1))
