"""Check a folder of images: its contents and its problems."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median_low
from typing import Any, NamedTuple

import psutil
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from msgdas.data.check.proposal import Proposal, propose
from msgdas.data.decode import SUFFIXES, UNREADABLE, is_grey
from msgdas.data.folder import empty_folders, list_files, split_files
from msgdas.data.form import Form
from msgdas.data.images import ImageFiles
from msgdas.data.mirror import SIDE, decide
from msgdas.data.split import FRACTIONS
from msgdas.errors import InputError

__all__ = ["Copies", "Kinds", "Report", "check_folder"]

CHUNK = 16  # files per task of a thread
DRAFT = (256, 256)  # a large JPEG is decoded at ½, ¼ or ⅛ if that is still this large

OnFile = Callable[[int, int], None]


@dataclass(frozen=True)
class Copies:
    """Files with the same pixels: paths relative to the folder, and the part and class of each."""

    files: tuple[str, ...]
    parts: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def leak(self) -> bool:
        """Whether they are in more than one part."""
        return len(set(self.parts)) > 1

    @property
    def conflict(self) -> bool:
        """Whether they are in more than one class."""
        return len(set(self.classes)) > 1


@dataclass(frozen=True)
class Kinds:
    """Counts over all readable images.

    Attributes:
        smallest_side, median_side, largest_side: in pixels; minimum and median of the shorter sides, maximum of the
            longer sides.
        grey, colour: by how the files store pixels.
        transparent, animated, rotated: with transparency; with several frames or pages; rotated by Exif.
        formats: Pillow's name → number of images.
    """

    smallest_side: int
    median_side: int
    largest_side: int
    grey: int
    colour: int
    transparent: int
    animated: int
    rotated: int
    formats: dict[str, int]


@dataclass(frozen=True)
class Report:
    """The contents of a folder of images. Paths are relative to it, with ``/``.

    Attributes:
        images: part → class → number of readable images.
        split_off: parts that the folder lacks and that are split off train.
        imbalance: ratio of training images of the largest and the smallest class; ``None`` if the smallest has none.
        kinds: sizes, colours and formats.
        unreadable: file → reason. They are left out of all counts.
        copies: files with the same pixels.
        empty_folders: class folders without images.
        other_files: suffix → number of files whose suffix is not that of an image.
        unused: image files outside the class folders.
        missing: part → classes without readable images there.
        refused: why a search would not start.
        mirror: whether a training mirrors the images at random, ``on``, and ``why``.
        proposal: what to run; ``None`` if a search would not start.
    """

    folder: str
    classes: tuple[str, ...]
    images: dict[str, dict[str, int]]
    split_off: tuple[str, ...]
    imbalance: float | None
    kinds: Kinds
    unreadable: dict[str, str]
    copies: tuple[Copies, ...]
    empty_folders: tuple[str, ...]
    other_files: dict[str, int]
    unused: tuple[str, ...]
    missing: dict[str, tuple[str, ...]]
    refused: tuple[str, ...]
    mirror: dict[str, Any]
    proposal: Proposal | None

    @property
    def leaks(self) -> tuple[Copies, ...]:
        """Copies in more than one part."""
        return tuple(c for c in self.copies if c.leak)

    @property
    def conflicts(self) -> tuple[Copies, ...]:
        """Copies in more than one class."""
        return tuple(c for c in self.copies if c.conflict)

    @property
    def ok(self) -> bool:
        """False if files are unreadable, parts or classes share an image, or a search would not start."""
        return not (self.unreadable or self.leaks or self.conflicts or self.refused)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, with ``ok``, ``leaks`` and ``conflicts``."""
        leaks, conflicts = ([asdict(c) for c in some] for some in (self.leaks, self.conflicts))
        return {"ok": self.ok, **asdict(self), "leaks": leaks, "conflicts": conflicts}


class _Entry(NamedTuple):
    path: Path
    part: str
    label: int


class _Facts(NamedTuple):
    """Facts of one readable file. ``digest``: SHA-256 of its upright pixels."""

    size: tuple[int, int]
    format: str
    grey: bool
    transparent: bool
    animated: bool
    rotated: bool
    digest: bytes


def check_folder(path: str | Path, *, on_file: OnFile | None = None) -> Report:
    """Decode every image file of a folder once, in as many threads as torch uses, and report what is there.

    Parts are those of `load_data`, which splits missing ones off train in the same way. Copies are files with the same
    pixels in any format; large JPEGs are compared at ½, ¼ or ⅛ of their size. Each thread holds one image at a time.

    Args:
        on_file: called with the number of files done and of all files.

    Raises:
        InputError: not a folder; no images, one class or a class too small to split, as in `load_data`; or no readable
            file.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(
            f"data {str(path)!r} is not a folder: give the path of a folder with a folder of images per class"
        )
    classes, given = list_files(folder)
    parts = split_files(given, classes, FRACTIONS, 0)
    entries = [_Entry(file, part, label) for part in ("train", "val", "test") for file, label in parts[part]]
    looks = list(zip(entries, _look_all([e.path for e in entries], on_file)))
    seen = {entry: facts for entry, facts in looks if isinstance(facts, _Facts)}
    if not seen:
        raise InputError(
            f"none of {len(entries)} image files can be read, '{entries[0].path}' for one: give JPEG or PNG files"
        )
    images, kinds = _count(seen, classes, parts), _kinds(list(seen.values()))
    readable = [(e.path, e.label) for e in seen if e.part == "train"]
    mirroring = decide(classes, ImageFiles.of(readable, Form.square(1, SIDE)))
    refused = tuple(_refusals(images))
    train = images["train"].values()
    imbalance = max(train) / min(train) if min(train) else None
    other_files, unused = _beside(folder, {e.path for e in entries})
    proposal = propose(
        str(path),
        train=sum(train),
        images=len(seen),
        channels=3 if kinds.colour else 1,
        median_side=kinds.median_side,
        imbalance=imbalance,
        memory_free=psutil.virtual_memory().available,
        gpu=torch.cuda.is_available(),
    )
    return Report(
        folder=str(path),
        classes=classes,
        images=images,
        split_off=tuple(part for part in parts if part not in given),
        imbalance=imbalance,
        kinds=kinds,
        unreadable={_inside(folder, e.path): reason for e, reason in looks if isinstance(reason, str)},
        copies=tuple(_copies(seen, classes, folder)),
        empty_folders=tuple(_inside(folder, path) for path in empty_folders(folder)),
        other_files=other_files,
        unused=unused,
        missing={part: none for part in ("val", "test") if (none := tuple(c for c in classes if not images[part][c]))},
        refused=refused,
        mirror={"on": mirroring.on, "why": mirroring.why},
        proposal=None if refused else proposal,
    )


def _look_all(paths: Sequence[Path], on_file: OnFile | None) -> list[_Facts | str]:
    """The facts of each file, or why it cannot be read."""

    def work(start: int) -> list[_Facts | str]:
        return [_look(path) for path in paths[start : start + CHUNK]]

    looks = list[_Facts | str]()
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for some in pool.map(work, range(0, len(paths), CHUNK)):
            looks += some
            if on_file:
                on_file(len(looks), len(paths))
    return looks


def _look(path: Path) -> _Facts | str:
    try:
        with Image.open(path) as image:
            size, grey, kind = image.size, is_grey(image), image.format or "?"
            image.draft(None, DRAFT)
            image.load()
            return _Facts(
                size=size,
                format=kind,
                grey=grey,
                transparent=image.has_transparency_data,
                animated=getattr(image, "is_animated", False) and kind != "MPO",  # a phone's photo with its preview
                rotated=image.getexif().get(ExifTags.Base.Orientation) in range(2, 9),
                digest=_digest(image),
            )
    except UnidentifiedImageError:
        return "not an image" if path.stat().st_size else "empty file"
    except UNREADABLE as error:
        return getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__


def _digest(image: Image.Image) -> bytes:
    """SHA-256 of the upright pixels, independent of the mode they are stored in."""
    image = ImageOps.exif_transpose(image)
    if not image.mode.startswith(("I", "F")):  # those have more than 8 bits
        image = image.convert("RGBA")
    digest = hashlib.sha256(f"{image.mode} {image.size}".encode())
    digest.update(image.tobytes())
    return digest.digest()


def _count(seen: Iterable[_Entry], classes: Sequence[str], parts: Iterable[str]) -> dict[str, dict[str, int]]:
    """Part → class → number of images."""
    counts = Counter((entry.part, entry.label) for entry in seen)
    return {part: {name: counts[part, label] for label, name in enumerate(classes)} for part in parts}


def _kinds(facts: Sequence[_Facts]) -> Kinds:
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
        f"the {part} part has no readable image: add some" for part in ("val", "test") if not any(images[part].values())
    ]


def _copies(seen: Mapping[_Entry, _Facts], classes: Sequence[str], folder: Path) -> list[Copies]:
    """Groups of files with the same pixels, in the order of the files."""
    groups = defaultdict[bytes, list[_Entry]](list)
    for entry, facts in seen.items():
        groups[facts.digest].append(entry)
    return [
        Copies(
            tuple(_inside(folder, e.path) for e in group),
            tuple(e.part for e in group),
            tuple(classes[e.label] for e in group),
        )
        for group in groups.values()
        if len(group) > 1
    ]


def _beside(folder: Path, used: set[Path]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Suffix → number of files that are no images, and the image files in no class folder. Skips hidden files."""
    others, unused = Counter[str](), list[str]()
    for root, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        for path in (Path(root, name) for name in names if not name.startswith(".")):
            if path.suffix.lower() not in SUFFIXES:
                others[path.suffix.lower() or "no suffix"] += 1
            elif path not in used:
                unused.append(_inside(folder, path))
    return dict(sorted(others.items(), key=lambda item: (-item[1], item[0]))), tuple(sorted(unused))


def _inside(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()
