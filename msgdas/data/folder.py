"""List the image files of a folder by part and class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from msgdas.data.decode import SUFFIXES
from msgdas.data.split import hold_out
from msgdas.errors import InputError

__all__ = ["Files", "empty_folders", "list_files", "split_files"]

Files = list[tuple[Path, int]]  # image file, label
PARTS = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}


def list_files(folder: Path) -> tuple[tuple[str, ...], dict[str, Files]]:
    """Sorted class names, and the image files of each part of the folder (at any depth below a class folder).

    Raises:
        InputError: there are no images, or only one class; a part has no class folders, or a class that train lacks.
    """
    roots = _part_roots(folder)
    images = {part: {c.name: _images_below(c) for c in _folders(root)} for part, root in roots.items()}
    names_of = {part: [name for name, paths in by_class.items() if paths] for part, by_class in images.items()}
    classes = tuple(names_of["train"])
    if len(classes) < 2:
        seen = f"only one class ({classes[0]!r})" if classes else "no class folders with images"
        raise InputError(
            f"data folder {str(roots['train'])!r} has {seen}: put the images of each of 2 or more classes into a folder"
        )
    for part, names in names_of.items():
        stranger = next((name for name in names if name not in classes), None)
        if stranger is not None:
            raise InputError(
                f"class {stranger!r} is in {str(roots[part])!r} but not in {str(roots['train'])!r}: add or remove it"
            )
        if not names:
            raise InputError(
                f"{str(roots[part])!r} has no class folders with images: "
                f"add them, or remove it to split {part} off train"
            )
    index = {name: i for i, name in enumerate(classes)}
    return classes, {part: [(p, index[c]) for c in names_of[part] for p in images[part][c]] for part in roots}


def empty_folders(folder: Path) -> list[Path]:
    """Class folders without images."""
    return [f for root in _part_roots(folder).values() for f in _folders(root) if not _images_below(f)]


def _part_roots(folder: Path) -> dict[str, Path]:
    """The folder of each part; ``{"train": folder}`` if it holds class folders only (one may be named 'valid')."""
    named = {part: next((folder / n for n in names if (folder / n).is_dir()), None) for part, names in PARTS.items()}
    roots = {part: root for part, root in named.items() if root is not None}
    if "train" in roots and _folders(roots["train"]):
        return roots
    part = next((root for root in roots.values() if _folders(root)), None)
    if part is not None:
        raise InputError(f"data folder {str(folder)!r} has {part.name!r} but no 'train' with class folders: add it")
    return {"train": folder}


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images_below(folder: Path) -> list[Path]:
    """Image files below ``folder``, sorted. Follows links to folders, each folder once.

    Skips hidden files and folders: ``.ipynb_checkpoints`` has copies, ``._1.jpg`` is not an image.
    """
    images, seen = list[Path](), set[Path]()
    for root, folders, names in os.walk(folder, followlinks=True):
        here = Path(root).resolve()
        link_upwards = Path(root).parent.resolve().is_relative_to(here)
        if here in seen or link_upwards:
            folders.clear()
            continue
        seen.add(here)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        images += [Path(root, n) for n in names if not n.startswith(".") and Path(n).suffix.lower() in SUFFIXES]
    return sorted(images)


def split_files(
    files: dict[str, Files], classes: Sequence[str], fractions: dict[str, float], seed: int
) -> dict[str, Files]:
    """Split missing parts off train, before anything is decoded, so that no image is held twice."""
    train = files["train"]
    missing = {part: fraction for part, fraction in fractions.items() if part not in files}
    index = hold_out(torch.tensor([label for _, label in train]), classes, missing, seed)
    return files | {part: [train[i] for i in chosen.tolist()] for part, chosen in index.items()}
