"""Operations on a part of the channels (PC-DARTS)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from msgdas.errors import InputError

__all__ = ["PartialChannels", "on_part"]


class PartialChannels(nn.Module):
    """Runs ``inner`` on the first ``1/parts`` of the channels; the others pass by (Xu et al. 2020, arXiv:1907.05737).

    On an edge of stride 2 those are halved (upwards) by a 2 × 2 max pooling. Both are concatenated and the channels
    shuffled, so that the next such module sees some of each. ``(B, C, H, W) → (B, C, ⌈H/stride⌉, ⌈W/stride⌉)``.

    Args:
        inner: keeps its ``C / parts`` channels; a `MixedOp`, for instance.
    """

    def __init__(self, inner: nn.Module, parts: int, stride: int = 1) -> None:
        super().__init__()
        self.inner, self.parts = inner, parts
        self.bypass = nn.Identity() if stride == 1 else nn.MaxPool2d(2, stride, ceil_mode=True)
        self.shuffle = nn.ChannelShuffle(parts)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[1] // self.parts
        y: Tensor = self.shuffle(torch.cat([self.inner(x[:, :size]), self.bypass(x[:, size:])], 1))
        return y

    def extra_repr(self) -> str:
        return f"parts={self.parts}"


def on_part(make: Callable[[int], nn.Module], channels: int, parts: int, stride: int = 1) -> nn.Module:
    """``make(channels)``, or with several ``parts`` a `PartialChannels` around ``make(channels / parts)``.

    Raises:
        InputError: ``parts`` does not divide ``channels``.
    """
    if parts < 1 or channels % parts:
        raise InputError(
            f"partial={parts} does not divide {channels} channels: use a multiple of it, or another partial"
        )
    return make(channels) if parts == 1 else PartialChannels(make(channels // parts), parts, stride)
