"""Decode image files of any kind to square pixels."""

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
    {
        ".jpg",
        ".jpeg",
        ".jfif",
        ".png",
        ".bmp",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".avif",
    }
)
# What Pillow's decoders raise for damaged files; Warning: if warnings are errors
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
    RuntimeError,
    Warning,
)
ORIENTATION = 0x0112  # Exif tag
CHUNK = 64  # files per task of a thread


class Header(NamedTuple):
    """Facts from an image file's header. ``size``: width and height."""

    size: tuple[int, int]
    grey: bool


def decode(image: Image.Image | str | Path, channels: int, size: int) -> Tensor:
    """Decode one image to uint8 ``(channels, size, size)``: scale its shorter side to ``size``, crop the centre.

    Images are rotated by their Exif tag, transparency becomes white, and 16 bits are reduced to 8.

    Raises:
        InputError: the file is not a readable image.
    """
    return torch.from_numpy(np.array(_decode(image, channels, size), order="C"))


def is_grey(image: Image.Image) -> bool:
    """Whether the image's mode has no colour."""
    return image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;16")


def header(path: str | Path) -> Header:
    """Read an image's header without decoding it.

    Raises:
        InputError: the file is not an image.
    """
    try:
        with Image.open(path) as image:
            return Header(image.size, is_grey(image))
    except UNREADABLE as error:
        raise _unreadable(path, error) from None


def decode_all(paths: Sequence[Path], channels: int, size: int, into: Tensor, *, stop: bool = False) -> dict[int, str]:
    """Decode files into the rows of ``into``, uint8 ``(N, channels, size, size)``.

    Returns:
        Failures, as `failures` returns them. Their rows are undefined.
    """
    rows = into.numpy()

    def work(i: int) -> None:
        rows[i] = _decode(paths[i], channels, size)

    return failures(work, len(paths), stop=stop)


def failures(work: Callable[[int], object], count: int, *, stop: bool = False) -> dict[int, str]:
    """Call ``work`` with 0 … ``count - 1``, in as many threads as torch uses.

    Returns:
        index → reason for each call that raised `InputError`, in ascending order.

    Raises:
        InputError: the first of them, if ``stop``.
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
            opened.draft(None, (2 * size, 2 * size))  # decode a large JPEG at ½, ¼ or ⅛ if that is still twice the size
            return _square(opened, channels, size)
    except UNREADABLE as error:
        raise _unreadable(image, error) from None


def _unreadable(path: str | Path, error: Exception) -> InputError:
    reason = (str(error) or type(error).__name__).partition("\n")[0]
    return InputError(f"image {str(path)!r} cannot be read: {reason}")


def _square(image: Image.Image, channels: int, size: int) -> npt.NDArray[np.uint8]:
    """Crop and scale to ``(channels, size, size)``."""
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
    """Remove transparency, and reduce more than 8 bits to 8."""
    if image.mode == "F" or image.mode.startswith("I"):
        array = np.nan_to_num(np.asarray(image, dtype=np.float64))
        return Image.fromarray((array * _to_bytes(image.mode, array)).round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def _to_bytes(mode: str, array: npt.NDArray[np.float64]) -> float:
    """Factor to 0 … 255. The mode tells 16 bits; else the largest value tells 16 bits, 8 bits or floats in 0 … 1."""
    largest = array.max(initial=0)
    if mode.startswith("I;16") or largest > 255:
        return 1 / 257
    return 255.0 if mode == "F" and largest <= 1 else 1.0
