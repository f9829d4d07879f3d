"""Random crop, flip and cutout of whole batches, each image on its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Augment", "augment", "normalise"]


@dataclass(frozen=True)
class Augment:
    """Pixels of random crop padding; whether images are mirrored at random; side of the cutout square in pixels."""

    crop: int = 0
    flip: bool = False
    cutout: int = 0


def augment(pixels: Tensor, settings: Augment, fill: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Shift each image by up to ``crop`` pixels, mirror it with probability ½, cut a square out of it.

    Args:
        pixels: uint8 ``(B, C, H, W)``.
        fill: uint8 ``(C,)``, the colour beyond the border and in the square.
        generator: CPU generator of all the randomness.

    Returns:
        uint8 ``(B, C, H, W)`` in channels_last.
    """
    batch, _, height, width = pixels.shape
    draws = torch.rand(5, batch, generator=generator)
    device = pixels.device
    dy, dx = ((2 * settings.crop + 1) * draws[:2]).long() - settings.crop
    rows = torch.arange(height) + dy[:, None]
    columns = torch.arange(width) + dx[:, None]
    if settings.flip:
        mirrored = (draws[2] < 0.5)[:, None]
        columns = torch.where(mirrored, width - 1 - columns, columns)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    if settings.cutout:
        inside &= ~_square(draws[3:], height, width, settings.cutout)
    rows, columns, inside = (t.to(device) for t in (rows.clamp(0, height - 1), columns.clamp(0, width - 1), inside))
    index = torch.arange(batch, device=device)[:, None, None]
    cropped = pixels.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]]  # (B, H, W, C), one gather
    return torch.where(inside[..., None], cropped, fill.to(device)).permute(0, 3, 1, 2)


def _square(draws: Tensor, height: int, width: int, side: int) -> Tensor:
    """``(B, H, W)`` mask of squares with random centres (DeVries & Taylor 2017, arXiv:1708.04552), clipped at the
    border."""
    top = (draws[0] * height).long()[:, None] - side // 2
    left = (draws[1] * width).long()[:, None] - side // 2
    y, x = torch.arange(height), torch.arange(width)
    return ((y >= top) & (y < top + side))[:, :, None] & ((x >= left) & (x < left + side))[:, None, :]


def normalise(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """``(pixels / 255 − mean) / std`` as float32 in channels_last; ``mean`` and ``std`` are ``(C,)`` in [0, 1]
    units."""
    x = pixels.to(dtype=torch.float32, memory_format=torch.channels_last)
    scale = (1 / (255 * std))[:, None, None].to(x.device)
    return x.mul_(scale).sub_((mean / std)[:, None, None].to(x.device))
