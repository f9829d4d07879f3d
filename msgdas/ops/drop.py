"""DropBlock on identities, which keeps skip connections from dominating the search."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["DropBlockIdentity", "drop_block"]


def drop_block(x: Tensor, p: float, block: int = 3) -> Tensor:
    """DropBlock (Ghiasi et al. 2018, arXiv:1810.12890, alg. 1): zero square blocks and scale the rest to keep the mean.

    The channels of an image share one mask. Independent masks would cost C times as much, on a CPU a third of the whole
    search step.

    Args:
        x: ``(B, C, H, W)``.
        p: expected fraction of the feature map that is dropped, counting overlaps of blocks twice.
        block: side of the blocks in pixels, at most the shorter side of the feature map.
    """
    height, width = x.shape[2:]
    block = min(block, height, width)
    corners = height - block + 1, width - block + 1  # positions where a whole block fits
    gamma = p * height * width / (block**2 * math.prod(corners))  # eq. 1
    chosen = x.new_empty(len(x), 1, *corners).bernoulli_(gamma)
    kept = 1 - F.max_pool2d(F.pad(chosen, [block - 1] * 4), block, stride=1)
    return x * (kept * (kept.numel() / (kept.sum() + 1e-6)))


class DropBlockIdentity(nn.Module):
    """The skip connection of MSG-DAS's super-net: an identity with DropBlock (Tan et al. 2021, arXiv:2107.04324).

    It drops only in training mode and with ``p > 0``. In evaluation, in probes and in derived networks it returns its
    input tensor itself.

    Args:
        p: expected fraction of the feature map that is dropped. `Search` sets it in every weight step.
        block: side of the dropped squares in pixels.
    """

    def __init__(self, p: float = 0.0, block: int = 3) -> None:
        super().__init__()
        self.p, self.block = p, block

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        return drop_block(x, self.p, self.block)

    def extra_repr(self) -> str:
        return f"p={self.p}, block={self.block}"
