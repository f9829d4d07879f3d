"""Data sets by name, read from their official files by torchvision."""

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
from msgdas.data.folder import Files
from msgdas.data.images import Images
from msgdas.errors import InputError

__all__ = ["ARRAYS", "IMAGENET", "Named", "default_folder", "read_arrays", "read_imagenet"]

# What torchvision raises for missing or damaged files and failed downloads
FAILURES = (RuntimeError, OSError, ValueError, LookupError, AssertionError)
Part = tuple[Images, tuple[str, ...]]


class Named(NamedTuple):
    """A data set that fits in memory.

    Attributes:
        read: (folder, train part?, download?) → images and class names.
        size: side of its images in pixels.
        augment: augmentation of images of that size.
    """

    read: Callable[[Path, bool, bool], Part]
    size: int
    augment: Augment


def default_folder() -> Path:
    """The environment variable ``MSGDAS_DATA``; else ``~/.cache/msgdas`` if it exists; else the user's cache folder."""
    if given := os.environ.get("MSGDAS_DATA"):
        return Path(given)
    earlier = Path("~/.cache/msgdas").expanduser()  # the default of version 0.1 on all systems
    return earlier if earlier.is_dir() else platformdirs.user_cache_path("msgdas", appauthor=False)


def read_arrays(name: str, folder: Path, *, download: bool) -> tuple[tuple[str, ...], dict[str, Images]]:
    """Class names, and the official train and test parts, of a data set in `ARRAYS`.

    Raises:
        InputError: files are missing or damaged, or cannot be downloaded.
    """
    read = ARRAYS[name].read
    try:
        train, classes = read(folder, True, download)
        test, _ = read(folder, False, download)
    except FAILURES as error:
        if download:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{name} cannot be downloaded to {str(folder)!r} ({reason}): try again, or give --data-dir DIR with it"
            ) from None
        raise InputError(
            f"{name} is missing or damaged in {str(folder)!r}: give --data-dir DIR with it, or --download"
        ) from None
    return classes, {"train": train, "test": test}


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


def _cifar(name: str) -> Callable[[Path, bool, bool], Part]:
    def read(folder: Path, train: bool, download: bool) -> Part:
        data = getattr(_datasets(), name)(folder, train=train, download=download)
        return Images(_pixels(data.data.transpose(0, 3, 1, 2)), torch.tensor(data.targets)), tuple(data.classes)

    return read


def _svhn(folder: Path, train: bool, download: bool) -> Part:
    data = _datasets().SVHN(folder, split="train" if train else "test", download=download)
    return Images(_pixels(data.data), torch.from_numpy(data.labels)), tuple("0123456789")


def _fashion_mnist(folder: Path, train: bool, download: bool) -> Part:
    data = _datasets().FashionMNIST(folder, train=train, download=download)
    return Images(data.data[:, None], data.targets.long()), tuple(data.classes)


def _pixels(array: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


ARRAYS = {
    "cifar10": Named(_cifar("CIFAR10"), 32, Augment(crop=4, flip=True)),
    "cifar100": Named(_cifar("CIFAR100"), 32, Augment(crop=4, flip=True)),
    "svhn": Named(_svhn, 32, Augment(crop=4)),
    "fashion-mnist": Named(_fashion_mnist, 28, Augment(crop=4, flip=True)),
}
IMAGENET = "imagenet"
