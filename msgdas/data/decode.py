"""Image files of any kind to square pixels."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from msgdas.errors import InputError

__all__ = ["SUFFIXES", "decode", "decode_all"]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


def decode(image: Image.Image | str | Path, channels: int, size: int) -> Tensor:
    """One image as uint8 ``(channels, size, size)``: turned upright, on white where transparent, shorter side to
    ``size``, centre cut.

    Raises:
        InputError: a file that is no readable image.
    """
    if not isinstance(image, Image.Image):
        try:
            with Image.open(image) as opened:
                return decode(opened, channels, size)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"image {str(image)!r} cannot be read: {error}") from None
    image.draft("RGB" if channels == 3 else "L", (size, size))
    image = _plain(ImageOps.exif_transpose(image)).convert("RGB" if channels == 3 else "L")
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    array = np.asarray(image)
    return torch.from_numpy(array[None].copy() if channels == 1 else array.transpose(2, 0, 1).copy())


def is_grey(image: Image.Image) -> bool:
    """Whether the image has no colour by its mode."""
    return image.mode in ("1", "L", "LA", "I", "F", "I;16", "I;16L", "I;16B")


def decode_all(paths: Sequence[Path], channels: int, size: int, into: Tensor) -> dict[int, str]:
    """Decode files into the rows of ``into``, uint8 ``(N, channels, size, size)``; what failed, by index, with the
    reason."""
    failed: dict[int, str] = {}

    def one(i: int) -> None:
        try:
            into[i] = decode(paths[i], channels, size)
        except InputError as error:
            failed[i] = str(error)

    with ThreadPoolExecutor() as pool:
        list(pool.map(one, range(len(paths))))
    return failed


def _plain(image: Image.Image) -> Image.Image:
    """Without transparency, palette or more than 8 bits."""
    if image.mode.startswith("I") or image.mode == "F":
        array = np.asarray(image, dtype=np.float64)
        scale = 255 / 65535 if array.max(initial=0) > 255 else 1.0
        return Image.fromarray((array * scale).round().clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image
