"""Make the parts of a data set from image files: decode them into memory if they fit, else leave them in files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from torch import Tensor

from msgdas.data.cache import decoded_once
from msgdas.data.decode import Header, OnDone, decode_all, failures, header, may_be_deep, ranges
from msgdas.data.form import Form, fitted
from msgdas.data.images import AnyImages, ImageFiles, Images
from msgdas.data.listing import Files
from msgdas.errors import InputError

__all__ = ["Reading", "memory_limit", "read"]

NAMED = 3  # unreadable files named in the warning
DEEP_SAMPLE = 5000  # images whose largest value is looked for


class Reading(NamedTuple):
    """How files are read.

    Attributes:
        image_size: height and width in pixels; ``None``: derived from the images.
        resize: one of `RESIZE`.
        form: what images are made into, whatever the two above say; ``None``: they say.
        stop: raise at an unreadable file, instead of leaving it out with one warning for all.
        max_memory: bytes of pixels above which images stay in their files.
        workers: processes that then decode batches.
        trusted: do not open files that stay before they are needed.
        on_image: called with how many of how many images of a part are decoded.
        sample: number of headers read to derive the image size.
    """

    image_size: tuple[int, int] | None
    resize: str
    stop: bool
    max_memory: int
    workers: int
    trusted: bool = False
    sample: int = 500
    form: Form | None = None
    on_image: OnDone | None = None


def memory_limit() -> int:
    """Half of the free memory: the two halves of a search are a copy of the training part."""
    return psutil.virtual_memory().available // 2


def read(files: Mapping[str, Files], how: Reading) -> tuple[dict[str, AnyImages], Form, str]:
    """Every part, from its readable files; their form, and why they were resized so, in words.

    Raises:
        InputError: no file can be read, or one cannot and ``how.stop``.
    """
    every = [path for part in files.values() for path, _ in part]
    form, why = (how.form, "") if how.form else _form(every, how)
    parts, failed = dict[str, AnyImages](), list[str]()
    in_memory = len(every) * form.bytes <= how.max_memory
    for name, part in files.items():
        parts[name], bad = _decoded(part, form, how) if in_memory else _checked(part, form, how)
        failed += bad
    if failed:
        more = f"; and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        warnings.warn(
            f"left out {len(failed)} of {len(every)} image files: {'; '.join(failed[:NAMED])}{more}", stacklevel=5
        )
    return parts, form, why


def _form(paths: Sequence[Path], how: Reading) -> tuple[Form, str]:
    """The form, and why so: from a sample, but grey only if every file is."""
    sample = _headers(_some(paths, how.sample)) or _headers(paths)
    if not sample:
        raise InputError(
            f"none of {len(paths)} image files can be read, {str(paths[0])!r} for one: give JPEG or PNG files"
        )
    (height, width), resize, why = fitted([seen.size for seen in sample], how.image_size, how.resize)
    grey = all(seen.grey for seen in sample) and all(seen.grey for seen in _headers(paths))
    form = Form(1 if grey else 3, height, width, resize)
    if any(seen.deep for seen in sample):
        integers, floats = ranges(_some([path for path in paths if may_be_deep(path)], DEEP_SAMPLE))
        form = replace(form, integers=integers, floats=floats)
    return form, why


def _some(paths: Sequence[Path], count: int) -> Sequence[Path]:
    """About ``count`` of the paths, evenly spaced."""
    return paths[:: max(1, len(paths) // count)]


def _headers(paths: Sequence[Path]) -> list[Header]:
    """Headers of the readable files."""
    headers = []
    for path in paths:
        with suppress(InputError):
            headers.append(header(path))
    return headers


def _decoded(files: Files, form: Form, how: Reading) -> tuple[Images, list[str]]:
    """Images as one uint8 tensor, and the failures."""
    bad: dict[int, str] = {}

    def decode() -> tuple[Tensor, bool]:
        pixels = torch.empty(len(files), form.channels, form.height, form.width, dtype=torch.uint8)
        bad.update(decode_all([path for path, _ in files], form, pixels, stop=how.stop, on_done=how.on_image))
        return pixels, not bad

    pixels = decoded_once(files, form, decode)
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


def _checked(files: Files, form: Form, how: Reading) -> tuple[ImageFiles, list[str]]:
    """The files with a readable header, and the failures."""
    bad = {} if how.trusted else failures(lambda i: header(files[i][0]), len(files), stop=how.stop)
    good = [file for i, file in enumerate(files) if i not in bad]
    return ImageFiles.of(good, form, workers=how.workers, stop=how.stop), list(bad.values())
