"""Check a data set of image files: its contents and its problems."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median, median_low
from typing import NamedTuple

import psutil
import torch
from torch import Tensor

from msgdas.data.arrays import is_arrays, read_arrays
from msgdas.data.check.proposal import propose
from msgdas.data.check.report import Copies, Kinds, Report
from msgdas.data.decode import OnDone
from msgdas.data.duplicates import Facts, array_facts, copies_of, look_all, near_copies_of
from msgdas.data.folder import empty_folders
from msgdas.data.form import Form, elongated
from msgdas.data.images import ImageFiles, Images
from msgdas.data.listing import PARTS, Beside, Files, Listing, beside
from msgdas.data.mirror import SIDE, decide
from msgdas.data.read import memory_limit
from msgdas.data.source import find_files, is_source
from msgdas.data.split import FRACTIONS, split_files
from msgdas.errors import InputError, shown

__all__ = ["check_folder"]

LEAST, ENOUGH = 5, 50  # training images a class, below which nothing can be learned, and for a start


class _Entry(NamedTuple):
    path: Path
    part: str
    label: int


def check_folder(
    path: str | Path, *, labels: str | Path | None = None, group: str | None = None, on_file: OnDone | None = None
) -> Report:
    """Decode every image file of a data set once, in as many threads as torch uses, and report what is there.

    Parts are those of `load_data`, which splits missing ones off train in the same way. Copies are files with the same
    pixels in any format; large JPEGs are compared at ½, ¼ or ⅛ of their size. Each thread holds one image at a time. Of
    more than 100,000 files, so many are decoded and compared, the others only opened.

    Args:
        path, labels, group: as `load_data` takes them.
        on_file: called with the number of files done and of all files.

    Raises:
        InputError: there is nothing, or no images, or only one class, as in `load_data`; or no readable file.
    """
    if not is_source(path):
        raise InputError(f"data {shown(str(path))} is no folder or file: give the path of one with images")
    arrays = _Arrays(path) if is_arrays(path) else None
    listing = arrays.listing if arrays else find_files(path, labels, group)
    folder, classes = listing.root, listing.classes
    parts, refused = _split(listing)
    entries = [_Entry(file, part, label) for part in PARTS if part in parts for file, label in parts[part]]
    paths = [entry.path for entry in entries]
    looks = list(zip(entries, arrays.facts(paths) if arrays else look_all(paths, on_file)))
    seen = {entry: facts for entry, facts in looks if isinstance(facts, Facts)}
    if not seen:
        raise InputError(
            f"none of {len(entries)} image files can be read, '{entries[0].path}' for one: give JPEG or PNG files"
        )
    images, kinds = _count(seen, classes, parts), _kinds(list(seen.values()))
    sizes = [facts.size for facts in seen.values()]
    train_files = [(e.path, e.label) for e in seen if e.part == "train"]
    mirroring = decide(
        classes, arrays.images(train_files) if arrays else ImageFiles.of(train_files, Form.square(1, SIDE))
    )
    train = images["train"].values()
    imbalance = max(train) / min(train) if min(train) else None
    aside = beside(listing) if arrays is None else Beside()
    proposal = propose(
        str(path),
        labels=None if labels is None else str(labels),
        group=group,
        train=sum(train),
        images=len(seen),
        channels=3 if kinds.colour else 1,
        median_side=kinds.median_side,
        shape=elongated(sizes),
        imbalance=imbalance,
        memory_free=psutil.virtual_memory().available,
        gpu=torch.cuda.is_available(),
    )
    found = [facts.look for facts in seen.values()]
    return Report(
        folder=str(path),
        classes=classes,
        images=images,
        split_off=tuple(part for part in parts if part not in listing.parts),
        imbalance=imbalance,
        kinds=kinds,
        unreadable={_inside(folder, e.path): reason for e, reason in looks if isinstance(reason, str)},
        copies=tuple(_copies(copies_of(found), list(seen), classes, folder)),
        near_copies=tuple(_copies(near_copies_of(found), list(seen), classes, folder)),
        compared=sum(look is not None for look in found),
        empty_folders=() if arrays or listing.labels else tuple(_inside(folder, f) for f in empty_folders(folder)),
        other_files=dict(aside.other),
        not_read=tuple(_inside(folder, f) for f in aside.not_read),
        unused=tuple(_inside(folder, f) for f in aside.unused),
        missing=_missing(images),
        problems=(*listing.problems, *(refused or _refusals(images)), *_hopeless(images["train"]), *aside.problems),
        likely_wrong=(*listing.warnings, *aside.warnings),
        mirror={"on": mirroring.on, "why": mirroring.why},
        proposal=proposal,
    )


class _Arrays:
    """The images of a file of arrays, as files that have a part and a number as their names."""

    def __init__(self, path: str | Path) -> None:
        classes, self._parts, _ = read_arrays(path, memory_limit())
        files = {
            part: [(Path(part, str(i)), label) for i, label in enumerate(images.labels.tolist())]
            for part, images in self._parts.items()
        }
        self.listing = Listing(Path(path).stem, Path(), classes, files)

    def facts(self, paths: Sequence[Path]) -> list[Facts]:
        return [array_facts(self._pixels(path)) for path in paths]

    def images(self, files: Files) -> Images:
        return Images(torch.stack([self._pixels(path) for path, _ in files]), torch.tensor([y for _, y in files]))

    def _pixels(self, path: Path) -> Tensor:
        return self._parts[path.parent.name].pixels[int(path.name)]


def _split(listing: Listing) -> tuple[Mapping[str, Files], list[str]]:
    """The parts; or those that are there, and why the others cannot be split off."""
    try:
        return split_files(listing, FRACTIONS, 0), []
    except InputError as error:
        return listing.parts, [str(error)]


def _missing(images: Mapping[str, Mapping[str, int]]) -> dict[str, tuple[str, ...]]:
    """Part → classes that it has no images of."""
    none = {part: tuple(c for c, n in images[part].items() if not n) for part in ("val", "test") if part in images}
    return {part: classes for part, classes in none.items() if classes}


def _hopeless(train: Mapping[str, int]) -> list[str]:
    usual = median(train.values())
    if usual >= LEAST:
        return []
    return [f"{usual:g} training images a class are too few: what is found is chance; collect {ENOUGH} or more of each"]


def _count(seen: Iterable[_Entry], classes: Sequence[str], parts: Iterable[str]) -> dict[str, dict[str, int]]:
    """Part → class → number of images."""
    counts = Counter((entry.part, entry.label) for entry in seen)
    return {part: {name: counts[part, label] for label, name in enumerate(classes)} for part in parts}


def _kinds(facts: Sequence[Facts]) -> Kinds:
    shorter, colour = [min(f.size) for f in facts], sum(not f.grey for f in facts)
    return Kinds(
        smallest_side=min(shorter),
        median_side=median_low(shorter),
        largest_side=max(max(f.size) for f in facts),
        grey=len(facts) - colour,
        colour=colour,
        transparent=sum(f.transparent for f in facts),
        animated=sum(f.animated for f in facts),
        rotated=sum(f.rotated for f in facts),
        formats=dict(Counter(f.format for f in facts).most_common()),
    )


def _refusals(images: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The errors that `load_data` will raise for the readable images."""
    small = [
        f"class {name!r} has too few readable images in train ({count}): give it 2 or more"
        for name, count in images["train"].items()
        if count < 2
    ]
    return small + [
        f"the {part} part has no readable image: add some"
        for part in ("val", "test")
        if not any(images.get(part, {"": 0}).values())
    ]


def _copies(groups: list[list[int]], entries: list[_Entry], classes: Sequence[str], folder: Path) -> list[Copies]:
    return [
        Copies(
            tuple(_inside(folder, entries[i].path) for i in group),
            tuple(entries[i].part for i in group),
            tuple(classes[entries[i].label] for i in group),
        )
        for group in groups
    ]


def _inside(folder: Path, path: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()
