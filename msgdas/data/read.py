"""Make the parts of a data set from image files: decode them into memory if they fit, else leave them in files."""

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

NAMED = 3  # unreadable files named in the warning


class Reading(NamedTuple):
    """How files are read.

    Attributes:
        image_size: side in pixels; ``None``: derived from the images.
        stop: raise at an unreadable file, instead of leaving it out with one warning for all.
        max_memory: bytes of pixels above which images stay in their files.
        workers: processes that then decode batches.
        trusted: do not open files that stay before they are needed.
        sample: number of headers read to derive the image size.
    """

    image_size: int | None
    stop: bool
    max_memory: int
    workers: int
    trusted: bool = False
    sample: int = 500


def memory_limit() -> int:
    """Half of the free memory: the two halves of a search are a copy of the training part."""
    return psutil.virtual_memory().available // 2


def read(files: Mapping[str, Files], how: Reading) -> dict[str, AnyImages]:
    """Every part, from its readable files.

    Raises:
        InputError: no file can be read, or one cannot and ``how.stop``.
    """
    every = [path for part in files.values() for path, _ in part]
    size, channels = _size_and_channels(every, how)
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


def _size_and_channels(paths: list[Path], how: Reading) -> tuple[int, int]:
    """Image size, from a sample unless given, and channels, 1 only if every file is grey."""
    sample, image_size = _headers(paths[:: max(1, len(paths) // how.sample)]) or _headers(paths), how.image_size
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
    """Headers of the readable files."""
    headers = []
    for path in paths:
        with suppress(InputError):
            headers.append(header(path))
    return headers


def _decoded(files: Files, channels: int, size: int, *, stop: bool) -> tuple[Images, list[str]]:
    """Images as one uint8 tensor, and the failures."""
    pixels = torch.empty(len(files), channels, size, size, dtype=torch.uint8)
    bad = decode_all([path for path, _ in files], channels, size, pixels, stop=stop)
    return _without(pixels, torch.tensor([label for _, label in files]), bad), list(bad.values())


def _without(pixels: Tensor, labels: Tensor, bad: dict[int, str]) -> Images:
    """The rows that are not bad, moved up in place."""
    if not bad:
        return Images(pixels, labels)
    keep = [i for i in range(len(labels)) if i not in bad]
    for to, i in enumerate(keep):
        if to != i:
            pixels[to] = pixels[i]
    return Images(pixels[: len(keep)], labels[keep])


def _checked(files: Files, channels: int, size: int, how: Reading) -> tuple[ImageFiles, list[str]]:
    """The files with a readable header, and the failures."""
    bad = {} if how.trusted else failures(lambda i: header(files[i][0]), len(files), stop=how.stop)
    good = [file for i, file in enumerate(files) if i not in bad]
    return ImageFiles.of(good, channels, size, workers=how.workers, stop=how.stop), list(bad.values())
