"""The form that images of any size and kind are brought into."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from msgdas.errors import InputError, shown

__all__ = ["LARGEST", "RESIZE", "Form", "elongated", "fitted", "parse_size"]

RESIZE = ("auto", "crop", "pad", "stretch")
SMALLEST, LARGEST = 4, 16_384  # pixels of a side
KEPT = 96 * 96  # pixels up to which images that are all of one size keep it
USUAL = 64  # side of all others
CUT = 1 / 3  # of the median image: cropping may cut off as much
ALIKE = 1.25  # ratio of the quartiles of the aspect ratios of images that are alike

Range = tuple[float, float]


@dataclass(frozen=True)
class Form:
    """What every image is made into.

    Attributes:
        channels: 1, grey, or 3.
        height, width: in pixels.
        resize: what is done with an image of another aspect ratio: ``"crop"`` its centre, ``"pad"`` it with black or
            ``"stretch"`` it.
        integers, floats: values of images with more than 8 bits that become 0 and 255. ``None``: 0 and 65,535 for
            integers, 0 and 1 for floats, if an image's values do not speak against it.
    """

    channels: int
    height: int
    width: int
    resize: str = "crop"
    integers: Range | None = None
    floats: Range | None = None

    def __post_init__(self) -> None:
        sizes = (self.channels, self.height, self.width)
        if not all(type(number) is int and 1 <= number <= LARGEST for number in sizes) or self.resize not in RESIZE[1:]:
            raise InputError(f"{shown(self)}: use sizes of 1 to {LARGEST:,}, and resize {', '.join(RESIZE[1:])}")
        for known in (self.integers, self.floats):
            if known is not None and not _is_range(known):
                raise InputError(f"range {shown(known)}: use two finite values, the smaller first")

    @classmethod
    def square(cls, channels: int, side: int) -> Form:
        """Squares, cropped."""
        return cls(channels, side, side)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Form:
        """From its fields as JSON has them."""
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**fields)

    @property
    def bytes(self) -> int:
        """Of one image."""
        return self.channels * self.height * self.width


def _is_range(values: Any) -> bool:
    numbers = isinstance(values, tuple) and len(values) == 2 and all(type(value) in (int, float) for value in values)
    return numbers and -math.inf < values[0] < values[1] < math.inf


def parse_size(size: int | str) -> tuple[int, int]:
    """Height and width in pixels from ``64``, ``"64"`` or ``"32x200"``, height first.

    Raises:
        InputError: it is no such text, or a side is less than 4 or more than 16,384.
    """
    found = re.fullmatch(r"(\d{1,9})(?:[x×](\d{1,9}))?", str(size).strip().lower())
    if found is None:
        raise InputError(f"image size {shown(str(size))}: use pixels as in 64, or HEIGHTxWIDTH as in 32x200")
    height, width = int(found[1]), int(found[2] or found[1])
    for side in (height, width):
        if not SMALLEST <= side <= LARGEST:
            raise InputError(f"image size {size}: use {SMALLEST} pixels or more, and at most {LARGEST:,}")
    return height, width


def fitted(
    sizes: Sequence[tuple[int, int]], size: tuple[int, int] | None, resize: str
) -> tuple[tuple[int, int], str, str]:
    """Choose the size and how images are brought to it.

    Images that are all of one size keep it if that has at most 96² pixels; others become 64 × 64. They are cropped,
    unless that would cut a third off the median image; then stretched if they have about the same aspect ratio, else
    padded.

    Args:
        sizes: width and height of some images, upright.
        size: height and width; ``None``: to be chosen.
        resize: one of `RESIZE`.

    Returns:
        Height and width; how to resize; why, in words, empty if nothing is cut off or changed in shape.
    """
    first = sizes[0]
    if size is None:
        common = all(one == first for one in sizes) and min(first) >= SMALLEST and first[0] * first[1] <= KEPT
        size = (first[1], first[0]) if common else (USUAL, USUAL)
    height, width = size
    ratios = sorted(w * height / (h * width) for w, h in sizes)  # of the aspect ratios to that of the result
    cut = median(1 - min(ratio, 1 / ratio) for ratio in ratios)
    if resize != "auto":
        return size, resize, "as set" if cut else ""
    if cut <= CUT:
        return size, "crop", f"cropping cuts {cut:.0%} off the median image" if cut > 0.005 else ""
    why = f"cropping to {height} × {width} would cut {cut:.0%} off the median image"
    return size, "stretch" if _alike(ratios) else "pad", why


def elongated(sizes: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """The median width and height of images that are all about as long, and too long to be made squares; else None."""
    ratios = sorted(w / h for w, h in sizes)
    middle = median(ratios)
    if 1 - min(middle, 1 / middle) <= CUT or not _alike(ratios):
        return None
    return round(median(w for w, _ in sizes)), round(median(h for _, h in sizes))


def _alike(ratios: Sequence[float]) -> bool:
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return high <= ALIKE * low
