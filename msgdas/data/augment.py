"""Random crop, flip and cutout of a batch, drawn per image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Augment", "augment", "normalise"]

INT32_PIXELS = 2**30  # so that twice an index fits in 32 bits


@dataclass(frozen=True)
class Augment:
    """Augmentation settings.

    Attributes:
        crop: largest random shift in pixels.
        flip: mirror images at random.
        cutout: side of the square that is cut out, in pixels.
    """

    crop: int = 0
    flip: bool = False
    cutout: int = 0


def augment(
    pixels: Tensor,
    settings: Augment,
    fill: Tensor,
    generator: torch.Generator | None = None,
    *,
    int32_pixels: int = INT32_PIXELS,
) -> Tensor:
    """Shift each image by up to ``crop`` pixels, mirror it with probability ½ and cut a square out of it.

    Args:
        pixels: uint8 ``(B, C, H, W)``.
        fill: uint8 ``(C,)``, the colour beyond the border and in the square.
        generator: CPU generator of all draws, a few numbers per image.
        int32_pixels: pixels of a batch (``B · H · W``) from which on indices have 64 bits.

    Returns:
        uint8 ``(B, C, H, W)`` in channels_last.
    """
    batch, channels, height, width = pixels.shape
    device, beyond = pixels.device, batch * height * width  # the index of the fill colour
    whole = torch.int32 if beyond < int32_pixels else torch.int64
    draws = torch.rand(5, batch, generator=generator).to(device)
    dy, dx = ((2 * settings.crop + 1) * draws[:2]).to(whole) - settings.crop
    rows = torch.arange(height, dtype=whole, device=device) + dy[:, None]
    columns = torch.arange(width, dtype=whole, device=device) + dx[:, None]
    if settings.flip:
        mirrored = (draws[2] < 0.5)[:, None]
        columns = torch.where(mirrored, width - 1 - columns, columns)
    first = torch.arange(0, beyond, height * width, dtype=whole, device=device)[:, None]
    rows = torch.where((rows >= 0) & (rows < height), first + width * rows, beyond)
    columns = torch.where((columns >= 0) & (columns < width), columns, beyond)
    index = (rows[:, :, None] + columns[:, None, :]).clamp_(max=beyond)
    if settings.cutout:
        in_rows, in_columns = (
            beyond * inside.to(whole) for inside in _square(draws[3:], height, width, settings.cutout)
        )
        index = torch.maximum(index, torch.minimum(in_rows[:, :, None], in_columns[:, None, :]))
    colours = torch.cat([pixels.permute(0, 2, 3, 1).reshape(-1, channels), fill[None]])
    return colours.index_select(0, index.view(-1)).view(batch, height, width, channels).permute(0, 3, 1, 2)


def _square(draws: Tensor, height: int, width: int, side: int) -> tuple[Tensor, Tensor]:
    """Masks of the rows and columns, ``(B, H)`` and ``(B, W)``, of squares with random centres, clipped at the border
    (DeVries & Taylor 2017, arXiv:1708.04552)."""
    top = (draws[0] * height).long()[:, None] - side // 2
    left = (draws[1] * width).long()[:, None] - side // 2
    y, x = torch.arange(height, device=draws.device), torch.arange(width, device=draws.device)
    return (y >= top) & (y < top + side), (x >= left) & (x < left + side)


def normalise(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """``(pixels / 255 − mean) / std`` as float32 in channels_last. ``mean`` and ``std`` are ``(C,)``, for pixels in
    [0, 1]."""
    batch, channels, height, width = pixels.shape
    x = pixels.permute(0, 2, 3, 1).to(torch.float32, memory_format=torch.contiguous_format).flatten(2)
    x.mul_((1 / (255 * std)).repeat(width)).sub_((mean / std).repeat(width))  # a loop over 3 channels is slow
    return x.view(batch, height, width, channels).permute(0, 3, 1, 2)
