"""Data sets by name: a function that reads each, and a row in `NAMED`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import platformdirs
import torch
from torch import Tensor

from msgdas.data.augment import Augment
from msgdas.data.images import Images
from msgdas.data.listing import Files
from msgdas.errors import InputError

__all__ = ["IMAGENET", "NAMED", "NAMES", "Named", "default_folder", "read_imagenet", "read_named"]

# What torchvision raises for missing or damaged files and failed downloads
FAILURES = (RuntimeError, OSError, ValueError, LookupError, AssertionError)
DIGITS = tuple("0123456789")
Read = tuple[tuple[str, ...], dict[str, Images]]


class Named(NamedTuple):
    """A data set that fits in memory.

    Attributes:
        read: (folder, download?) → class names; the parts ``"train"`` and, where official, ``"val"`` and ``"test"``.
            Missing parts are split off train.
        augment: side of the images in pixels → their augmentation.
    """

    read: Callable[[Path, bool], Read]
    augment: Callable[[int], Augment]


def default_folder() -> Path:
    """The environment variable ``MSGDAS_DATA``; else ``~/.cache/msgdas`` if it exists; else the user's cache folder."""
    if given := os.environ.get("MSGDAS_DATA"):
        return Path(given)
    earlier = Path("~/.cache/msgdas").expanduser()  # the default of version 0.1 on all systems
    return earlier if earlier.is_dir() else platformdirs.user_cache_path("msgdas", appauthor=False)


def read_named(name: str, folder: Path, *, download: bool) -> Read:
    """Class names and the official parts of a data set in `NAMED`.

    Raises:
        InputError: files are missing or damaged, or cannot be downloaded.
    """
    try:
        return NAMED[name].read(folder, download)
    except FAILURES as error:
        if download:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{name} cannot be downloaded to {str(folder)!r} ({reason}): try again, or give --data-dir DIR with it"
            ) from None
        raise InputError(
            f"{name} is missing or damaged in {str(folder)!r}: give --data-dir DIR with it, or --download"
        ) from None


def read_imagenet(folder: Path, *, download: bool) -> tuple[tuple[str, ...], dict[str, Files]]:
    """Class names, and the files of the official train part and, as test, of the official val part.

    torchvision unpacks the archives in place when it first finds them.

    Raises:
        InputError: files are missing or damaged, or ``download`` is given: they cannot be downloaded.
    """
    if download:
        raise InputError("imagenet cannot be downloaded: get it from image-net.org and give --data-dir DIR with it")
    datasets = _datasets()
    try:
        train, test = (datasets.ImageNet(folder, split=split) for split in ("train", "val"))
    except FAILURES:
        raise InputError(
            f"imagenet is missing or damaged in {str(folder)!r}: give --data-dir DIR with {', '.join(_archives())}"
        ) from None
    files = {
        part: [(Path(path), label) for path, label in of.samples] for part, of in (("train", train), ("test", test))
    }
    return _distinct([names[0] for names in train.classes], train.wnids), files


def _datasets() -> Any:
    from torchvision import datasets  # lazy: it takes a second

    return datasets


def _archives() -> Sequence[str]:
    return [archive for archive, _ in _datasets().imagenet.ARCHIVE_META.values()]


def _distinct(names: Sequence[str], keys: Sequence[str]) -> tuple[str, ...]:
    """Add the key to names that occur twice: ImageNet has two cranes."""
    counts = Counter(names)
    return tuple(name if counts[name] == 1 else f"{name} ({key})" for name, key in zip(names, keys))


def _official(part: Callable[[Path, bool, bool], tuple[Images, tuple[str, ...]]]) -> Callable[[Path, bool], Read]:
    """A reader from ``part``: (folder, train part?, download?) → images and class names."""

    def read(folder: Path, download: bool) -> Read:
        train, classes = part(folder, True, download)
        return classes, {"train": train, "test": part(folder, False, download)[0]}

    return read


def _cifar(name: str) -> Callable[[Path, bool], Read]:
    def part(folder: Path, train: bool, download: bool) -> tuple[Images, tuple[str, ...]]:
        data = getattr(_datasets(), name)(folder, train=train, download=download)
        return Images(_pixels(data.data.transpose(0, 3, 1, 2)), torch.tensor(data.targets)), tuple(data.classes)

    return _official(part)


@_official
def _svhn(folder: Path, train: bool, download: bool) -> tuple[Images, tuple[str, ...]]:
    data = _datasets().SVHN(folder, split="train" if train else "test", download=download)
    return Images(_pixels(data.data), torch.from_numpy(data.labels)), DIGITS


@_official
def _fashion_mnist(folder: Path, train: bool, download: bool) -> tuple[Images, tuple[str, ...]]:
    data = _datasets().FashionMNIST(folder, train=train, download=download)
    return Images(data.data[:, None], data.targets.long()), tuple(data.classes)


def _digits(folder: Path, download: bool) -> Read:
    """1,797 grey images, installed with scikit-learn."""
    from sklearn.datasets import load_digits  # lazy: it takes a second

    bunch = load_digits()
    grey = (torch.from_numpy(bunch.images)[:, None] * (255 / 16)).round().to(torch.uint8)
    return DIGITS, {"train": Images(grey, torch.from_numpy(bunch.target).long())}


def _pixels(array: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _shifts(pixels: int, *, of: int, flip: bool = False) -> Callable[[int], Augment]:
    """Random crops shifted by up to so many ``pixels`` for images of side ``of``, in proportion for others."""
    return lambda size: Augment(max(1, round(pixels * size / of)), flip)


NAMED = {
    "digits": Named(_digits, lambda size: Augment(crop=1)),
    "cifar10": Named(_cifar("CIFAR10"), _shifts(4, of=32, flip=True)),
    "cifar100": Named(_cifar("CIFAR100"), _shifts(4, of=32, flip=True)),
    "svhn": Named(_svhn, _shifts(4, of=32)),
    "fashion-mnist": Named(_fashion_mnist, _shifts(4, of=28, flip=True)),
}
IMAGENET = "imagenet"
NAMES = (*NAMED, IMAGENET)
