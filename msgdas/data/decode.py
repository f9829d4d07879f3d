"""Image files of any kind to square pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from msgdas.errors import InputError

__all__ = ["SUFFIXES", "UNREADABLE", "Header", "decode", "decode_all", "failures", "header", "is_grey"]

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


class Header(NamedTuple):
    """Of an image file. ``size``: width and height."""

    size: tuple[int, int]
    grey: bool


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


def header(path: str | Path) -> Header:
    """What a file says of its image, without decoding it.

    Raises:
        InputError: no image.
    """
    try:
        with Image.open(path) as image:
            return Header(image.size, is_grey(image))
    except UNREADABLE as error:
        raise _unreadable(path, error) from None


def decode_all(paths: Sequence[Path], channels: int, size: int, into: Tensor, *, stop: bool = False) -> dict[int, str]:
    """Decode files into the rows of ``into``, uint8 ``(N, channels, size, size)``.

    Returns:
        As `failures`. The rows of those hold anything.
    """
    rows = into.numpy()

    def work(i: int) -> None:
        rows[i] = _decode(paths[i], channels, size)

    return failures(work, len(paths), stop=stop)


def failures(work: Callable[[int], object], count: int, *, stop: bool = False) -> dict[int, str]:
    """Call ``work`` with 0 … ``count - 1``, in as many threads as torch uses.

    Returns:
        Where it raised `InputError`, by ascending index, with the reason.

    Raises:
        InputError: there was one, and ``stop``.
    """

    def failure(i: int) -> str | None:
        try:
            work(i)
        except InputError as error:
            if stop:
                raise
            return str(error)
        return None

    def some(start: int) -> dict[int, str]:
        reasons = {i: failure(i) for i in range(start, min(start + CHUNK, count))}
        return {i: why for i, why in reasons.items() if why is not None}

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return {i: why for failed in pool.map(some, range(0, count, CHUNK)) for i, why in failed.items()}


def _decode(image: Image.Image | str | Path, channels: int, size: int) -> npt.NDArray[np.uint8]:
    if isinstance(image, Image.Image):
        return _square(image, channels, size)
    try:
        with Image.open(image) as opened:
            opened.draft(None, (2 * size, 2 * size))  # a large JPEG at ½, ¼ or ⅛ where that is still twice the size
            return _square(opened, channels, size)
    except UNREADABLE as error:
        raise _unreadable(image, error) from None


def _unreadable(path: str | Path, error: Exception) -> InputError:
    reason = (str(error) or type(error).__name__).partition("\n")[0]
    return InputError(f"image {str(path)!r} cannot be read: {reason}")


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
