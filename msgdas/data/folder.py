"""Folders of images."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch
from PIL import Image
from torch import Tensor

from msgdas.data.decode import SUFFIXES, UNREADABLE, decode_all, is_grey
from msgdas.data.images import Images
from msgdas.data.split import hold_out
from msgdas.errors import InputError

__all__ = ["Files", "list_files", "read", "split_files"]

Files = list[tuple[Path, int]]  # image file, class
PARTS = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}
SAMPLE = 500  # headers that are looked at for the image size
NAMED = 3  # unreadable files that the warning names


def list_files(folder: Path) -> tuple[tuple[str, ...], dict[str, Files]]:
    """Class names in order, and the image files of each part that the folder has (at any depth below a class folder).

    Raises:
        InputError: no images, one class, a class that training does not have, a part without class folders.
    """
    roots = _part_roots(folder)
    images = {part: {c.name: _images_below(c) for c in _folders(root)} for part, root in roots.items()}
    found = {part: [name for name, paths in by_class.items() if paths] for part, by_class in images.items()}
    classes = tuple(found["train"])
    if len(classes) < 2:
        seen = f"only one class ({classes[0]!r})" if classes else "no class folders with images"
        raise InputError(
            f"data folder '{roots['train']}' has {seen}: put the images of each of 2 or more classes into a folder"
        )
    for part, names in found.items():
        stranger = next((name for name in names if name not in classes), None)
        if stranger is not None:
            raise InputError(
                f"class {stranger!r} is in '{roots[part]}' but not in '{roots['train']}': add or remove it"
            )
        if not names:
            raise InputError(
                f"'{roots[part]}' has no class folders with images: add them, or remove it to split {part} off train"
            )
    index = {name: i for i, name in enumerate(classes)}
    return classes, {part: [(p, index[c]) for c in found[part] for p in images[part][c]] for part in roots}


def _part_roots(folder: Path) -> dict[str, Path]:
    """The folder of each part; ``{"train": folder}`` where it holds class folders alone (one may be called 'valid')."""
    named = {part: next((folder / n for n in names if (folder / n).is_dir()), None) for part, names in PARTS.items()}
    roots = {part: root for part, root in named.items() if root is not None}
    if "train" in roots and _folders(roots["train"]):
        return roots
    part = next((root for root in roots.values() if _folders(root)), None)
    if part is not None:
        raise InputError(f"data folder '{folder}' has '{part.name}' but no 'train' with class folders: add it")
    return {"train": folder}


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images_below(folder: Path) -> list[Path]:
    """Sorted; nothing hidden (``.ipynb_checkpoints`` holds copies, ``._1.jpg`` no image)."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        found += [Path(root, n) for n in names if not n.startswith(".") and Path(n).suffix.lower() in SUFFIXES]
    return sorted(found)


def split_files(
    files: dict[str, Files], classes: Sequence[str], fractions: dict[str, float], seed: int
) -> dict[str, Files]:
    """With the parts that are missing split from train, before anything is decoded: no image is ever held twice."""
    train = files["train"]
    missing = {part: fraction for part, fraction in fractions.items() if part not in files}
    index = hold_out(torch.tensor([label for _, label in train]), classes, missing, seed)
    return files | {part: [train[i] for i in chosen.tolist()] for part, chosen in index.items()}


def read(files: dict[str, Files], classes: Sequence[str], image_size: int | None, *, stop: bool) -> dict[str, Images]:
    """Decode every part into one uint8 tensor each.

    Args:
        stop: raise at a file that cannot be read, instead of leaving it out with one warning for all.

    Raises:
        InputError: not enough memory, or too little that can be read.
    """
    every = [path for part in files.values() for path, _ in part]
    size, channels = _look(every, image_size)
    _refuse_large(len(every), channels, size)
    parts, failed = {}, list[str]()
    for name, part in files.items():
        pixels = torch.empty(len(part), channels, size, size, dtype=torch.uint8)
        bad = decode_all([path for path, _ in part], channels, size, pixels, stop=stop)
        parts[name] = _without(pixels, torch.tensor([label for _, label in part]), bad)
        failed += bad.values()
    if failed:
        more = f"; and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        warnings.warn(
            f"left out {len(failed)} of {len(every)} image files: {'; '.join(failed[:NAMED])}{more}", stacklevel=3
        )
    _refuse_few(parts, classes)
    return parts


def _look(paths: list[Path], image_size: int | None) -> tuple[int, int]:
    """Image size and channels to use. Size: from a sample; channels: 1 only if every file is grey."""
    sample = _headers(paths[:: max(1, len(paths) // SAMPLE)]) or _headers(paths)
    if not sample:
        raise InputError(f"none of {len(paths)} image files can be read, '{paths[0]}' for one: give JPEG or PNG files")
    if image_size is None:
        width, height = sample[0][0]
        common = all(shape == (width, height) for shape, _ in sample)
        image_size = width if common and 4 <= width == height <= 96 else 64
    grey = all(grey for _, grey in sample) and all(grey for _, grey in _headers(paths))
    return image_size, 1 if grey else 3


def _headers(paths: Sequence[Path]) -> list[tuple[tuple[int, int], bool]]:
    """(width, height) and whether grey, of the files that can be opened."""
    return [header for path in paths if (header := _header(path)) is not None]


def _header(path: Path) -> tuple[tuple[int, int], bool] | None:
    try:
        with Image.open(path) as image:
            return image.size, is_grey(image)
    except UNREADABLE:
        return None


def _refuse_large(count: int, channels: int, size: int) -> None:
    need, free = count * channels * size * size, psutil.virtual_memory().available // 2
    if need > free:
        raise InputError(
            f"{count} images at {size} × {size} need {need / 2**30:.1f} GiB of memory, more than half of what is free "
            f"({free / 2**30:.1f} GiB): lower image_size"
        )


def _without(pixels: Tensor, labels: Tensor, bad: dict[int, str]) -> Images:
    """Rows that are not bad, moved up in place."""
    if not bad:
        return Images(pixels, labels)
    keep = [i for i in range(len(labels)) if i not in bad]
    for to, i in enumerate(keep):
        if to != i:
            pixels[to] = pixels[i]
    return Images(pixels[: len(keep)], labels[keep])


def _refuse_few(parts: dict[str, Images], classes: Sequence[str]) -> None:
    """Each class twice in train (once in each half of a search), and no empty part."""
    counts = torch.bincount(parts["train"].labels, minlength=len(classes)).tolist()
    for name, count in zip(classes, counts):
        if count < 2:
            raise InputError(f"class {name!r} has too few readable images in train ({count}): give it 2 or more")
    for part, images in parts.items():
        if not len(images):
            raise InputError(f"the {part} part has no readable image: add some")
