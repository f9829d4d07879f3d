"""Operations without weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Zero"]


class Zero(nn.Module):
    """``none``: no connection. Zeros of the input's shape, without a graph."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)
