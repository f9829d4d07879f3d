"""Partial channel connections (PC-DARTS)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from msgdas.errors import InputError

__all__ = ["PartialChannels", "on_part"]


class PartialChannels(nn.Module):
    """Run ``inner`` on the first ``1/parts`` of the channels; the others bypass it (Xu et al. 2020, arXiv:1907.05737).

    With stride 2, a 2 × 2 max pooling halves the bypass, rounding up. The two parts are concatenated and the channels
    shuffled, so that the next such module sees some of each. ``(B, C, H, W) → (B, C, ⌈H/stride⌉, ⌈W/stride⌉)``.

    Args:
        inner: module with ``C / parts`` input and output channels, such as a `MixedOp`.
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
    """Return ``make(channels)``; for ``parts`` above 1, a `PartialChannels` around ``make(channels / parts)``.

    Raises:
        InputError: ``parts`` does not divide ``channels``.
    """
    if parts < 1 or channels % parts:
        raise InputError(f"partial={parts} does not divide {channels} channels: change channels or partial")
    return make(channels) if parts == 1 else PartialChannels(make(channels // parts), parts, stride)
