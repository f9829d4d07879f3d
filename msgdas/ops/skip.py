"""Operations without weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Zero"]


class Zero(nn.Module):
    """``none``: no connection. Zeros of the input's shape, halved (upwards) for stride 2, without a graph."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])
