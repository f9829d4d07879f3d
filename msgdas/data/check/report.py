"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msgdas.data.check.proposal import Proposal

__all__ = ["Copies", "Kinds", "Report"]


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
        near_copies: files that look the same.
        compared: number of files that were looked at for copies.
        empty_folders: class folders without images.
        other_files: suffix → number of files whose suffix is not that of a picture.
        not_read: pictures of kinds that are not read.
        unused: image files in no class.
        missing: part → classes without readable images there.
        problems: why a search should not start, one line each.
        likely_wrong: what is likely not meant, one line each.
        mirror: whether a training mirrors the images at random, ``on``, and ``why``.
        proposal: what to run, once there are no problems.
    """

    folder: str
    classes: tuple[str, ...]
    images: dict[str, dict[str, int]]
    split_off: tuple[str, ...]
    imbalance: float | None
    kinds: Kinds
    unreadable: dict[str, str]
    copies: tuple[Copies, ...]
    near_copies: tuple[Copies, ...]
    compared: int
    empty_folders: tuple[str, ...]
    other_files: dict[str, int]
    not_read: tuple[str, ...]
    unused: tuple[str, ...]
    missing: dict[str, tuple[str, ...]]
    problems: tuple[str, ...]
    likely_wrong: tuple[str, ...]
    mirror: dict[str, Any]
    proposal: Proposal

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
        """False if there is a problem, files are unreadable, or parts or classes share an image."""
        return not (self.problems or self.unreadable or self.leaks or self.conflicts)
