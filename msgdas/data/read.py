"""Image files to the parts of a data set: decoded into memory if they fit, else left in their files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from torch import Tensor

from msgdas.data.decode import Header, decode_all, failures, header
from msgdas.data.folder import Files
from msgdas.data.images import AnyImages, ImageFiles, Images
from msgdas.errors import InputError

__all__ = ["Reading", "memory_limit", "read"]

SAMPLE = 500  # headers that are looked at for the image size
NAMED = 3  # unreadable files that the warning names


class Reading(NamedTuple):
    """How files are read.

    Attributes:
        image_size: side in pixels; None: as the images say.
        stop: raise at a file that cannot be read, instead of leaving it out with one warning for all.
        max_memory: bytes of pixels above which they stay in their files.
        workers: processes that then decode batches.
        trusted: files that stay are not opened before they are needed.
    """

    image_size: int | None
    stop: bool
    max_memory: int
    workers: int
    trusted: bool = False


def memory_limit() -> int:
    """Half of the free memory: the halves of a search are copies of the training part."""
    return psutil.virtual_memory().available // 2


def read(files: Mapping[str, Files], how: Reading) -> dict[str, AnyImages]:
    """Every part, of the files that can be read.

    Raises:
        InputError: no file can be read, or one and ``how.stop``.
    """
    every = [path for part in files.values() for path, _ in part]
    size, channels = _look(every, how.image_size)
    parts, failed = dict[str, AnyImages](), list[str]()
    in_memory = len(every) * channels * size**2 <= how.max_memory
    for name, part in files.items():
        if in_memory:
            parts[name], bad = _decoded(part, channels, size, stop=how.stop)
        else:
            parts[name], bad = _checked(part, channels, size, how)
        failed += bad
    if failed:
        more = f"; and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        warnings.warn(
            f"left out {len(failed)} of {len(every)} image files: {'; '.join(failed[:NAMED])}{more}", stacklevel=5
        )
    return parts


def _look(paths: list[Path], image_size: int | None) -> tuple[int, int]:
    """Image size and channels to use. Size: from a sample; channels: 1 only if every file is grey."""
    sample = _headers(paths[:: max(1, len(paths) // SAMPLE)]) or _headers(paths)
    if not sample:
        raise InputError(
            f"none of {len(paths)} image files can be read, {str(paths[0])!r} for one: give JPEG or PNG files"
        )
    if image_size is None:
        width, height = sample[0].size
        common = all(seen.size == (width, height) for seen in sample)
        image_size = width if common and 4 <= width == height <= 96 else 64
    grey = all(seen.grey for seen in sample) and all(seen.grey for seen in _headers(paths))
    return image_size, 1 if grey else 3


def _headers(paths: Sequence[Path]) -> list[Header]:
    """Of the files that can be opened."""
    found = []
    for path in paths:
        with suppress(InputError):
            found.append(header(path))
    return found


def _decoded(files: Files, channels: int, size: int, *, stop: bool) -> tuple[Images, list[str]]:
    """One uint8 tensor, and what failed."""
    pixels = torch.empty(len(files), channels, size, size, dtype=torch.uint8)
    bad = decode_all([path for path, _ in files], channels, size, pixels, stop=stop)
    return _without(pixels, torch.tensor([label for _, label in files]), bad), list(bad.values())


def _without(pixels: Tensor, labels: Tensor, bad: dict[int, str]) -> Images:
    """Rows that are not bad, moved up in place."""
    if not bad:
        return Images(pixels, labels)
    keep = [i for i in range(len(labels)) if i not in bad]
    for to, i in enumerate(keep):
        if to != i:
            pixels[to] = pixels[i]
    return Images(pixels[: len(keep)], labels[keep])


def _checked(files: Files, channels: int, size: int, how: Reading) -> tuple[ImageFiles, list[str]]:
    """The files that have the header of an image, and what failed."""
    bad = {} if how.trusted else failures(lambda i: header(files[i][0]), len(files), stop=how.stop)
    good = [file for i, file in enumerate(files) if i not in bad]
    return ImageFiles.of(good, channels, size, workers=how.workers, stop=how.stop), list(bad.values())
