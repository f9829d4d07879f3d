"""Image files of any kind to square pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from msgdas.errors import InputError

__all__ = ["SUFFIXES", "UNREADABLE", "decode", "decode_all", "is_grey"]

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}
)
# What Pillow's decoders raise on damaged files; Warning: where warnings are errors
UNREADABLE = (
    OSError,
    SyntaxError,
    EOFError,
    ArithmeticError,
    LookupError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    ValueError,
    Warning,
)
ORIENTATION = 0x0112  # the Exif tag
CHUNK = 64  # files that a thread takes at once


def decode(image: Image.Image | str | Path, channels: int, size: int) -> Tensor:
    """One image as uint8 ``(channels, size, size)``: shorter side to ``size``, then the centre of the longer one.

    Images are turned upright by their Exif tag, laid on white where they are transparent, and cut down from 16 bits.

    Raises:
        InputError: a file that is no readable image.
    """
    return torch.from_numpy(np.array(_decode(image, channels, size), order="C"))


def is_grey(image: Image.Image) -> bool:
    """Whether the image has no colour by its mode."""
    return image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;16")


def decode_all(paths: Sequence[Path], channels: int, size: int, into: Tensor, *, stop: bool = False) -> dict[int, str]:
    """Decode files into the rows of ``into``, uint8 ``(N, channels, size, size)``, in as many threads as torch uses.

    Returns:
        What failed, by ascending index, with the reason. Its rows hold anything.

    Raises:
        InputError: a file failed, and ``stop``.
    """
    rows = into.numpy()

    def failure(i: int) -> str | None:
        try:
            rows[i] = _decode(paths[i], channels, size)
        except InputError as error:
            if stop:
                raise
            return str(error)
        return None

    def work(start: int) -> dict[int, str]:
        failures = {i: failure(i) for i in range(start, min(start + CHUNK, len(paths)))}
        return {i: why for i, why in failures.items() if why is not None}

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return {i: why for failed in pool.map(work, range(0, len(paths), CHUNK)) for i, why in failed.items()}


def _decode(image: Image.Image | str | Path, channels: int, size: int) -> npt.NDArray[np.uint8]:
    if isinstance(image, Image.Image):
        return _square(image, channels, size)
    try:
        with Image.open(image) as opened:
            opened.draft(None, (2 * size, 2 * size))  # a large JPEG at ½, ¼ or ⅛ where that is still twice the size
            return _square(opened, channels, size)
    except UNREADABLE as error:
        raise InputError(f"image '{image}' cannot be read: {str(error).partition(chr(10))[0]}") from None


def _square(image: Image.Image, channels: int, size: int) -> npt.NDArray[np.uint8]:
    """``(channels, size, size)``."""
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    image, mode = _plain(image), "L" if channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    array = np.asarray(image)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def _plain(image: Image.Image) -> Image.Image:
    """Without transparency, palette or more than 8 bits."""
    if image.mode == "F" or image.mode.startswith("I"):
        array = np.nan_to_num(np.asarray(image, dtype=np.float64))
        return Image.fromarray((array * _to_bytes(image.mode, array)).round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def _to_bytes(mode: str, array: npt.NDArray[np.float64]) -> float:
    """Factor to 0 … 255: from 16 bits by mode, else from 16 bits, 8 bits or (floats) 0 … 1 by the largest value."""
    largest = array.max(initial=0)
    if mode.startswith("I;16") or largest > 255:
        return 1 / 257
    return 255.0 if mode == "F" and largest <= 1 else 1.0
