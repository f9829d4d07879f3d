"""Operations with few or no parameters: zeros, noise, projection."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Noise", "Projection", "Zero"]


class Zero(nn.Module):
    """``none``, no connection: zeros of the input's shape, halved (rounding up) for stride 2. No autograd graph."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


class Noise(nn.Module):
    """``noise``, which no search should choose (space S4 of Zela et al. 2020, arXiv:1909.09656).

    Standard normal noise of the input's shape, halved (rounding up) for stride 2. No autograd graph. Each forward pass
    draws from the global generator, in evaluation too.
    """

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.randn_like(x[:, :, :: self.stride, :: self.stride])


class Projection(nn.Module):
    """A skip connection that changes the shape: 1 × 1 convolution of every ``stride``-th pixel, then BatchNorm.

    It slices before it convolves, for the reason given in `FactorizedReduce`.
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x[:, :, :: self.stride, :: self.stride]))
