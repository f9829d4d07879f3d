"""Decode image files of any kind to pixels of one form."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from tokenize import TokenError
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from msgdas.data.form import Form, Range
from msgdas.data.pixels import as_bytes, planes
from msgdas.errors import InputError

__all__ = [
    "NOT_READ",
    "RESAMPLING",
    "SUFFIXES",
    "UNREADABLE",
    "Header",
    "OnDone",
    "decode",
    "decode_all",
    "failures",
    "header",
    "is_deep",
    "is_grey",
    "may_be_deep",
    "ranges",
    "refuse_large",
]


def _reads_heic() -> bool:
    """Whether Pillow reads HEIC files: with the extra ``heic``."""
    if find_spec("pillow_heif") is None:
        return False
    import pillow_heif

    pillow_heif.register_heif_opener()
    return True


HEIC = frozenset({".heic", ".heif"})
SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
    ".avif",
}) | (HEIC if _reads_heic() else frozenset())  # fmt: skip
NOT_READ = frozenset({
    ".heic", ".heif", ".jxl", ".jp2", ".j2k", ".psd", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2",
    ".raf", ".raw", ".exr", ".hdr", ".dcm", ".nii", ".tga", ".dds", ".ico", ".eps", ".pcx",
}) - SUFFIXES  # fmt: skip
"""Pictures that are left out, which is said."""
ARRAY = ".npy"  # an image for predict
DEEP = frozenset({".png", ".tif", ".tiff", ".pgm", ".pnm"})
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
    TokenError,  # of numpy's headers
    Image.DecompressionBombError,
    ValueError,
    RuntimeError,
    AttributeError,
    AssertionError,
    MemoryError,
    Warning,
)
ORIENTATION = 0x0112  # Exif tag
LYING = (5, 6, 7, 8)  # its values for images that lie on their side
MOST_PIXELS = 2**26  # decoded at once: 192 MiB as RGB
CHUNK = 64  # files per task of a thread

OnDone = Callable[[int, int], None]
RESAMPLING = Image.Resampling.BICUBIC


class Header(NamedTuple):
    """Facts from an image file's header.

    Attributes:
        size: width and height of the upright image.
        deep: whether it has more than 8 bits.
    """

    size: tuple[int, int]
    grey: bool
    deep: bool


def decode(image: Image.Image | str | Path, form: Form) -> Tensor:
    """Decode one image to uint8 ``(channels, height, width)``.

    Images are rotated by their Exif tag and then resized, transparency becomes white, and more than 8 bits are reduced
    to 8.

    Raises:
        InputError: the file is not a readable image.
    """
    return torch.from_numpy(np.array(_decode(image, form), order="C"))


def is_grey(image: Image.Image) -> bool:
    """Whether the image's mode has no colour."""
    return image.mode in ("1", "L", "LA", "La") or is_deep(image)


def is_deep(image: Image.Image) -> bool:
    """Whether the image has more than 8 bits: integers or floats."""
    return image.mode == "F" or image.mode.startswith("I")


def may_be_deep(path: Path) -> bool:
    """Whether files of this name may have more than 8 bits, to judge without opening it."""
    return path.suffix.lower() in DEEP


def header(path: str | Path) -> Header:
    """Read an image's header without decoding it.

    Raises:
        InputError: the file is not an image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            # Pillow would decode a whole PNG to look for the tag behind its pixels
            lying = image.format != "PNG" and image.getexif().get(ORIENTATION) in LYING
            return Header((height, width) if lying else (width, height), is_grey(image), is_deep(image))
    except UNREADABLE as error:
        raise _unreadable(path, error) from None


def ranges(paths: Sequence[Path]) -> tuple[Range | None, Range | None]:
    """The values of all images with more than 8 bits, of integers and of floats: from their minimum, but at most 0, to
    their maximum. ``None`` where there are none, or no values above 0."""
    found: dict[str, list[Range]] = {"I": [], "F": []}

    def work(i: int) -> None:
        try:
            with Image.open(paths[i]) as image:
                if is_deep(image):
                    refuse_large(image)
                    values = np.asarray(image)
                    values = values[np.isfinite(values)]
                    if values.size:
                        found[image.mode[0]].append((float(values.min()), float(values.max())))
        except UNREADABLE as error:
            raise _unreadable(paths[i], error) from None

    failures(work, len(paths))
    integers, floats = (
        (min(0.0, *(low for low, _ in seen)), max(high for _, high in seen)) if seen else (0.0, 0.0)
        for seen in found.values()
    )
    return integers if integers[1] > 0 else None, floats if floats[1] > 0 else None


def decode_all(
    paths: Sequence[Path], form: Form, into: Tensor, *, stop: bool = False, on_done: OnDone | None = None
) -> dict[int, str]:
    """Decode files into the rows of ``into``, uint8 ``(N, channels, height, width)``.

    Returns:
        Failures, as `failures` returns them. Their rows are undefined.
    """
    rows = into.numpy()

    def work(i: int) -> None:
        rows[i] = _decode(paths[i], form)

    return failures(work, len(paths), stop=stop, on_done=on_done)


def failures(
    work: Callable[[int], object], count: int, *, stop: bool = False, on_done: OnDone | None = None
) -> dict[int, str]:
    """Call ``work`` with 0 … ``count - 1``, in as many threads as torch uses.

    Args:
        on_done: called with how many of how many are done.

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
        bad = dict[int, str]()
        for done, failed in enumerate(pool.map(some, range(0, count, CHUNK)), 1):
            bad |= failed
            if on_done:
                on_done(min(done * CHUNK, count), count)
        return bad


def _decode(image: Image.Image | str | Path, form: Form) -> npt.NDArray[np.uint8]:
    if isinstance(image, Image.Image):
        return _formed(image, form)
    if Path(image).suffix.lower() == ARRAY:
        return _formed_array(Path(image), form)
    twice = 2 * max(form.height, form.width)
    try:
        with Image.open(image) as opened:
            opened.draft(None, (twice, twice))  # decode a large JPEG at ½, ¼ or ⅛ if that is still twice the size
            refuse_large(opened)
            return _formed(opened, form)
    except UNREADABLE as error:
        raise _unreadable(image, error) from None


def _formed_array(path: Path, form: Form) -> npt.NDArray[np.uint8]:
    """An image in a ``.npy`` file, of any number of channels."""
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")
        if array.nbytes > MOST_PIXELS * 8:
            raise ValueError(f"it has {array.nbytes:,} bytes")
    except UNREADABLE as error:
        raise _unreadable(path, error) from None
    known = form.integers if array.dtype.kind in "bui" else form.floats
    pixels = as_bytes(planes(f"image '{path}'", array[None]), known)[0]
    if len(pixels) != form.channels:
        raise InputError(f"image '{path}' has {len(pixels)} channels: the network takes {form.channels}")
    size = form.height, form.width
    if pixels.shape[1:] == size:
        return pixels
    grown = F.interpolate(torch.from_numpy(pixels)[None].float(), size, mode="bilinear", antialias=True)
    return grown.round().byte().numpy()[0]


def refuse_large(image: Image.Image) -> None:
    """Raise ValueError for an image with more pixels than are decoded at once."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise ValueError(f"{width * height / 1e6:,.1f} megapixels; at most {MOST_PIXELS / 1e6:,.1f} are decoded")


def _unreadable(path: str | Path, error: BaseException) -> InputError:
    reason = (str(error) or type(error).__name__).partition("\n")[0]
    return InputError(f"image {str(path)!r} cannot be read: {reason}")


def _formed(image: Image.Image, form: Form) -> npt.NDArray[np.uint8]:
    """Make it upright, then of the form's kind, then of its size."""
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    image, mode = _plain(image, form), "L" if form.channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    size = form.width, form.height
    if image.size != size:
        if form.resize == "crop":
            image = ImageOps.fit(image, size, RESAMPLING)
        elif form.resize == "pad":
            image = ImageOps.pad(image, size, RESAMPLING)
        else:
            image = image.resize(size, RESAMPLING)
    array = np.asarray(image)
    return array[None] if form.channels == 1 else array.transpose(2, 0, 1)


def _plain(image: Image.Image, form: Form) -> Image.Image:
    """Remove transparency, and reduce more than 8 bits to 8."""
    if is_deep(image):
        array = np.asarray(image, dtype=np.float64)
        known = form.floats if image.mode == "F" else form.integers
        low, high = known or _usual_range(image.mode, array)
        array = np.nan_to_num((array - low) * (255 / (high - low)))
        return Image.fromarray(array.round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def _usual_range(mode: str, array: npt.NDArray[np.float64]) -> Range:
    """The mode tells 16 bits; else the largest value tells 16 bits, 8 bits or floats in 0 … 1."""
    largest = np.nan_to_num(array).max(initial=0)
    if mode.startswith("I;16") or largest > 255:
        return 0, 65_535
    return (0, 1) if mode == "F" and largest <= 1 else (0, 255)
