"""Data sets by name, and folders of images."""

from __future__ import annotations

import difflib
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from msgdas.data.augment import Augment
from msgdas.data.folder import list_files, read, split_files
from msgdas.data.images import DataSet, Images
from msgdas.data.split import hold_out
from msgdas.errors import InputError

__all__ = ["load_data"]

BAD_IMAGE = ("skip", "stop")


def load_data(
    spec: str | Path,
    *,
    image_size: int | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    on_bad_image: str = "skip",
) -> DataSet:
    """A data set, held in memory as uint8.

    Args:
        spec: ``"digits"`` (1,797 grey 8 × 8 images, offline) or a folder: ``train/``, ``val/`` (``validation/``,
            ``valid/``) and ``test/`` with a folder per class in each, or the class folders alone. A missing part is
            split from train.
        image_size: side in pixels; default: that of the images if they are square, equal and at most 96, else 64.
        test_fraction, val_fraction: share of train that a missing test part gets, and a missing val part of the rest.
        split_seed: of those splits, 0 or more. It belongs to the data, not to a run: runs share their test part.
        on_bad_image: ``"skip"`` files that cannot be read, with one warning, or ``"stop"`` at the first.

    Raises:
        InputError: one line that says what is wrong with the name, the folder or its images.
    """
    if on_bad_image not in BAD_IMAGE:
        raise InputError(f"on_bad_image={on_bad_image!r}: use {' or '.join(map(repr, BAD_IMAGE))}")
    if image_size is not None and image_size < 4:
        raise InputError(f"image_size={image_size}: use 4 pixels or more")
    if not 0 <= split_seed < 2**32:
        raise InputError(f"split_seed={split_seed}: use 0 to 2**32 - 1")
    fractions = {"test": test_fraction, "val": val_fraction}
    if spec == "digits":
        return _digits(image_size or 8, fractions, split_seed)
    folder = Path(spec)
    if not folder.is_dir():
        near = difflib.get_close_matches(str(spec), ["digits"])
        way = ". Did you mean 'digits'?" if near else ": give the path of a folder with a folder of images per class"
        raise InputError(f"data {str(spec)!r} is neither a known name (digits) nor a folder{way}")
    classes, files = list_files(folder)
    files = split_files(files, classes, fractions, split_seed)
    parts = read(files, classes, image_size, stop=on_bad_image == "stop")
    augment = Augment(crop=max(1, parts["train"].pixels.shape[-1] // 8), flip=True)
    return _data_set(folder.resolve().name, classes, parts, augment)


def _digits(image_size: int, fractions: dict[str, float], seed: int) -> DataSet:
    bunch = load_digits()
    grey = (torch.from_numpy(bunch.images)[:, None] * (255 / 16)).round()
    if image_size != 8:
        grey = F.interpolate(grey, size=image_size, mode="bilinear", antialias=True).round()
    images, classes = Images(grey.to(torch.uint8), torch.from_numpy(bunch.target).long()), tuple("0123456789")
    parts = {part: images.take(index) for part, index in hold_out(images.labels, classes, fractions, seed).items()}
    return _data_set("digits", classes, parts, Augment(crop=1))


def _data_set(name: str, classes: tuple[str, ...], parts: dict[str, Images], augment: Augment) -> DataSet:
    mean, std = _statistics(parts["train"].pixels)
    return DataSet(name, classes, parts["train"], parts["val"], parts["test"], mean, std, augment)


def _statistics(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel in [0, 1] units, exact, from a histogram of the bytes."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.zeros(pixels.shape[1], 256, dtype=torch.float64)
    for some in torch.split(pixels, 4096):  # bincount makes int64 of the bytes: some at a time
        counts += torch.stack([torch.bincount(plane.flatten(), minlength=256) for plane in some.unbind(1)])
    shares = counts / counts.sum(1, keepdim=True)
    mean = shares @ levels
    variance = (shares * (levels - mean[:, None]) ** 2).sum(1)
    return mean.float(), variance.sqrt().clamp(min=1 / 255).float()
