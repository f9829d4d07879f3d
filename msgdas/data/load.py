"""Data sets by name, and folders of images."""

from __future__ import annotations

import difflib
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

from msgdas.data.augment import Augment
from msgdas.data.decode import SUFFIXES, decode_all, is_grey
from msgdas.data.images import DataSet, Images, split
from msgdas.errors import InputError

__all__ = ["load_data"]

PARTS = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}
Files = list[tuple[Path, int]]  # image file, class


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
        spec: ``"digits"`` (1,797 grey 8 × 8 images, offline) or a folder: ``train/``, ``val/`` (``validation/``) and
        ``test/``
            with a folder per class in each, or the class folders alone. A missing part is split from train.
        image_size: side in pixels; default: that of the images if they are square, equal and at most 96, else 64.
        val_fraction, test_fraction: share of the training part that a missing part gets.
        split_seed: of those splits. It belongs to the data and not to a run, so that runs share their test part.
        on_bad_image: ``"skip"`` files that cannot be read, with a warning, or ``"stop"`` at the first.

    Raises:
        InputError: one line that says what is wrong with the name, the folder or its images.
    """
    if str(spec) == "digits" and not Path(spec).is_dir():
        everything = _digits(image_size)
        classes: tuple[str, ...] = tuple("0123456789")
        train, val, test = _split_missing({"train": everything}, val_fraction, test_fraction, split_seed)
        return _data_set("digits", classes, train, val, test, Augment(crop=1))
    folder = Path(spec)
    if not folder.is_dir():
        near = " Did you mean 'digits'?" if difflib.get_close_matches(str(spec), ["digits"]) else ""
        raise InputError(f"data {str(spec)!r} is neither a known name (digits) nor a folder.{near}")
    classes, files = _list(folder)
    parts = _read(files, image_size, on_bad_image)
    for name, images in parts.items():
        _refuse_lonely(name, images, classes)
    train, val, test = _split_missing(parts, val_fraction, test_fraction, split_seed)
    return _data_set(
        folder.name, classes, train, val, test, Augment(crop=max(1, train.pixels.shape[-1] // 8), flip=True)
    )


def _digits(image_size: int | None) -> Images:
    bunch = load_digits()
    pixels = (torch.from_numpy(bunch.images)[:, None] * (255 / 16)).round()
    if image_size not in (None, 8):
        pixels = torch.nn.functional.interpolate(pixels, size=image_size, mode="bilinear").round()
    return Images(pixels.to(torch.uint8), torch.from_numpy(bunch.target).long())


def _data_set(
    name: str, classes: tuple[str, ...], train: Images, val: Images, test: Images, augment: Augment
) -> DataSet:
    mean, std = _statistics(train.pixels)
    return DataSet(name, classes, train, val, test, mean, std, augment)


def _statistics(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel in [0, 1] units, exact, from a histogram of the bytes."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(c.flatten(), minlength=256) for c in pixels.transpose(0, 1).contiguous()])
    shares = counts.double() / counts.sum(1, keepdim=True)
    mean = shares @ levels
    variance = (shares * (levels - mean[:, None]) ** 2).sum(1)
    return mean.float(), variance.sqrt().clamp(min=1 / 255).float()


# ------------------------------------------------------------------------ folders


def _list(folder: Path) -> tuple[tuple[str, ...], dict[str, Files]]:
    """Class names, and the image files of each part that the folder has."""
    found = {part: next((folder / n for n in names if (folder / n).is_dir()), None) for part, names in PARTS.items()}
    roots = {part: root for part, root in found.items() if root is not None}
    if "train" not in roots:
        if roots:
            raise InputError(
                f"data folder '{folder}' has {', '.join(r.name + '/' for r in roots.values())} but no train/"
            )
        roots = {"train": folder}
    images = {part: {c.name: _images_below(c) for c in _folders(root)} for part, root in roots.items()}
    classes = tuple(name for name, paths in images["train"].items() if paths)
    if len(classes) < 2:
        seen = f"one class ({classes[0]!r})" if classes else "no class folders with images"
        raise InputError(
            f"data folder '{roots['train']}' has {seen}: put the images of each class into a folder named after it"
        )
    for part, by_class in images.items():
        strangers = [name for name, paths in by_class.items() if paths and name not in classes]
        if strangers:
            raise InputError(f"class {strangers[0]!r} is in '{roots[part]}' but not in '{roots['train']}'")
    return classes, {
        part: [(path, i) for i, name in enumerate(classes) for path in by_class.get(name, [])]
        for part, by_class in images.items()
    }


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images_below(folder: Path) -> list[Path]:
    paths = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    return sorted(p for p in paths if p.is_file())


def _read(files: dict[str, Files], image_size: int | None, on_bad_image: str) -> dict[str, Images]:
    every = [path for part in files.values() for path, _ in part]
    size, channels = _look(every, image_size)
    need, free = len(every) * channels * size * size, psutil.virtual_memory().available // 2
    if need > free:
        raise InputError(
            f"{len(every)} images at {size} × {size} need {need / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB are "
            "at hand: lower --image-size"
        )
    parts, failed = {}, list[str]()
    for name, part in files.items():
        pixels = torch.empty(len(part), channels, size, size, dtype=torch.uint8)
        labels = torch.tensor([label for _, label in part])
        bad = decode_all([path for path, _ in part], channels, size, pixels)
        failed += [bad[i] for i in sorted(bad)]
        if bad:
            keep = torch.tensor([i for i in range(len(part)) if i not in bad], dtype=torch.long)
            pixels, labels = pixels[keep], labels[keep]
        parts[name] = Images(pixels, labels)
    if failed and on_bad_image == "stop":
        raise InputError(f"{failed[0]} ({len(failed)} such files): remove it, or skip such files")
    if failed:
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        warnings.warn(f"skipped what is no image: {failed[0]}{more}", stacklevel=3)
    return parts


def _look(paths: list[Path], image_size: int | None) -> tuple[int, int]:
    """Image size and channels to use, from a sample of the headers."""
    step = max(1, len(paths) // 500)
    sizes, grey = Counter[tuple[int, int]](), True
    for image in _headers(paths[::step]):
        sizes[image.size] += 1
        grey = grey and is_grey(image)
    if not sizes:
        raise InputError(f"none of the {len(paths)} image files can be read, '{paths[0]}' for one")
    if image_size is None:
        width, height = next(iter(sizes))
        image_size = width if len(sizes) == 1 and width == height <= 96 else 64
    if image_size < 4:
        raise InputError(f"image size {image_size}: use 4 pixels or more")
    return image_size, 1 if grey else 3


def _headers(paths: list[Path]) -> Iterator[Image.Image]:
    for path in paths:
        try:
            with Image.open(path) as image:
                yield image
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # noqa: PERF203 - per file
            continue


def _refuse_lonely(part: str, images: Images, classes: tuple[str, ...]) -> None:
    counts = torch.bincount(images.labels, minlength=len(classes)).tolist()
    least = 8 if part == "train" else 1
    for name, count in zip(classes, counts, strict=True):
        if count < least and part == "train":
            raise InputError(
                f"class {name!r} has {count} readable images in {part}: {least} or more are needed to split it"
            )


def _split_missing(
    parts: dict[str, Images], val_fraction: float, test_fraction: float, seed: int
) -> tuple[Images, Images, Images]:
    train, held = parts["train"], dict(parts)
    for part, fraction in (("test", test_fraction), ("val", val_fraction)):
        if part not in held:
            size = max(len(set(train.labels.tolist())), round(len(train) * fraction))
            kept, out = split(train.labels, len(train) - size, size, seed)
            held[part], train = train.take(out.sort().values), train.take(kept.sort().values)
    return train, held["val"], held["test"]
