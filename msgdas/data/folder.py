"""List the image files of a folder by part and class."""

from __future__ import annotations

import os
from pathlib import Path

from msgdas.data.decode import NOT_READ, SUFFIXES
from msgdas.data.listing import PARTS, Files, Listing, is_special, part_of, some, way_out
from msgdas.errors import InputError

__all__ = ["empty_folders", "list_folder"]

PICTURES = {"image", "images", "img", "imgs", "jpegimages", "pictures", "photos"}
TARGETS = {
    "mask",
    "masks",
    "annotation",
    "annotations",
    "label",
    "labels",
    "segmentation",
    "segmentations",
    "bbox",
    "gt",
}


def list_folder(folder: Path) -> Listing:
    """The files of a folder with a folder of images per class, at any depth below it, for each part or without parts.

    Raises:
        InputError: there are no images, or only one class; a part has no class folders, or a class that train lacks;
            two folders are the same part.
    """
    roots = _part_roots(folder)
    below = {part: {c.name: _images_below(c) for c in _folders(root)} for part, root in roots.items()}
    names_of = {part: [name for name, paths in by_class.items() if paths] for part, by_class in below.items()}
    classes = tuple(names_of["train"])
    if len(classes) < 2:
        raise InputError(_too_few(roots["train"], classes))
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
    parts = {part: [(p, index[c]) for c in names_of[part] for p in below[part][c]] for part in roots}
    return Listing(
        folder.resolve().name,
        folder,
        classes,
        parts,
        warnings=(*_empty(below, classes), *_warnings(roots, parts, classes)),
        problems=tuple(_problems(classes)),
    )


def empty_folders(folder: Path) -> list[Path]:
    """Class folders without images."""
    return [f for root in _part_roots(folder).values() for f in _folders(root) if not _images_below(f)]


def _problems(classes: tuple[str, ...]) -> list[str]:
    known = {name.lower(): name for name in classes}
    pictures, targets = PICTURES.intersection(known), TARGETS.intersection(known)
    if not (pictures and targets):
        return []
    names = ", ".join(repr(known[name]) for name in sorted(pictures | targets))
    return [f"folders {names} look like pictures and what is drawn in them, not like classes: give a folder per class"]


def _empty(below: dict[str, dict[str, list[Path]]], classes: tuple[str, ...]) -> list[str]:
    names = [name for by_class in below.values() for name, paths in by_class.items() if not paths]
    names = [name for name in names if name not in classes]
    return [f"folder {some(names)} without images: no class"] if names else []


def _warnings(roots: dict[str, Path], parts: dict[str, Files], classes: tuple[str, ...]) -> list[str]:
    found = []
    named = [name for name in classes if part_of(name)]
    if named:
        found.append(f"folder {some(named)} taken for classes, not for parts, which are called train, val and test")
    below = {part: _folders_below_classes(root, parts[part]) for part, root in roots.items()}
    shared = sorted(below["train"] & set().union(*(names for part, names in below.items() if part != "train")))
    if shared:
        found.append(
            f"folder {some(shared)} below the classes of train and of another part: the same people or places?"
        )
    elif len(below["train"]) > 1 and len(parts) < len(PARTS):
        found.append(
            f"images lie in folders below the classes ({some(sorted(below['train']))}): if those are people, "
            "cameras or places, keep each in one part by --group folder"
        )
    return found


def _folders_below_classes(root: Path, files: Files) -> set[str]:
    """Names of the first folders below the classes, if most images are in one."""
    below = [path.relative_to(root).parts for path, _ in files]
    return {parts[1] for parts in below if len(parts) > 2} if sum(len(p) > 2 for p in below) > len(below) / 2 else set()


def _too_few(root: Path, classes: tuple[str, ...]) -> str:
    """Why a folder has fewer than two classes."""
    unread = [p for f in _folders(root) for p in _below(f) if p.suffix.lower() in NOT_READ]
    if unread:
        kinds = {path.suffix.lower(): 1 for path in unread}
        where = sorted({path.relative_to(root).parts[0] for path in unread})
        return (
            f"data folder {str(root)!r} has {len(unread)} pictures that are not read ({', '.join(sorted(kinds))}) in "
            f"class {some(where)}: {way_out(kinds)}"
        )
    way = "put the images of each of 2 or more classes into a folder"
    if len(classes) == 1:
        if classes[0].lower() in PICTURES:
            way = "give their labels by --labels FILE.csv, or a folder of images per class"
        return f"data folder {str(root)!r} has only one class ({classes[0]!r}): {way}"
    return f"data folder {str(root)!r} has no class folders with images: {way}"


def _part_roots(folder: Path) -> dict[str, Path]:
    """The folder of each part; ``{"train": folder}`` if it holds class folders only (one may be named 'valid')."""
    named = {part: [f for f in _folders(folder) if f.name.lower() in names] for part, names in PARTS.items()}
    if any(map(_folders, named["train"])):
        for part, found in named.items():
            if len(found) > 1:
                both = " and ".join(repr(f.name) for f in found[:2])
                raise InputError(
                    f"data folder {str(folder)!r} has two folders for {part}, {both}: merge them, or remove one"
                )
        return {part: found[0] for part, found in named.items() if found}
    other = next((f for found in named.values() for f in found if _folders(f)), None)
    if other is not None:
        raise InputError(f"data folder {str(folder)!r} has {other.name!r} but no 'train' with class folders: add it")
    return {"train": folder}


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX")))


def _images_below(folder: Path) -> list[Path]:
    return [path for path in _below(folder) if path.suffix.lower() in SUFFIXES and not is_special(path)]


def _below(folder: Path) -> list[Path]:
    """Files below ``folder``, sorted. Follows links to folders, each folder once.

    Skips hidden files and folders: ``.ipynb_checkpoints`` has copies, ``._1.jpg`` is not an image.
    """
    files, seen = list[Path](), set[Path]()
    for root, folders, names in os.walk(folder, followlinks=True):
        here = Path(root).resolve()
        link_upwards = Path(root).parent.resolve().is_relative_to(here)
        if here in seen or link_upwards:
            folders.clear()
            continue
        seen.add(here)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        files += [Path(root, n) for n in names if not n.startswith(".")]
    return sorted(files)
