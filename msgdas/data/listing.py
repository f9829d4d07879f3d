"""What image files a data set consists of, wherever they are."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgdas.data.decode import NOT_READ, SUFFIXES

__all__ = ["PARTS", "Beside", "Files", "Listing", "beside", "is_special", "part_of", "short", "some", "way_out"]

Files = list[tuple[Path, int]]  # image file, label
PARTS = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid", "dev"),
    "test": ("test", "testing"),
}
"""Part → its names, in any case."""
LISTED = 3  # names in a message


@dataclass(frozen=True)
class Listing:
    """The image files of a data set by part, found without opening one.

    Attributes:
        name: of the data set.
        root: folder that holds all files.
        classes: names; a label is an index of them.
        parts: ``"train"`` and, where they are given, ``"val"`` and ``"test"``.
        groups: file → the group that must stay in one part; empty: no groups.
        warnings: what is likely not meant, one line each.
        problems: why a search should not start, one line each.
        labels: the table of labels, if there is one.
        left_out: images that are not used, as was asked for.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    parts: Mapping[str, Files]
    groups: Mapping[Path, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    labels: Path | None = None
    left_out: frozenset[Path] = frozenset()

    @property
    def files(self) -> list[Path]:
        """All of them."""
        return [path for part in self.parts.values() for path, _ in part]


@dataclass(frozen=True)
class Beside:
    """Files below a data set's root that it does not use.

    Attributes:
        unused: images that are in no class.
        not_read: pictures of kinds that are not read.
        special: pipes, sockets and devices with the name of an image.
        other: suffix → number of files of other kinds.
    """

    unused: tuple[Path, ...] = ()
    not_read: tuple[Path, ...] = ()
    special: tuple[Path, ...] = ()
    other: Mapping[str, int] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """Pictures that were meant to be there."""
        if not self.not_read:
            return []
        kinds = Counter(path.suffix.lower() for path in self.not_read)
        text = ", ".join(f"{count} {suffix}" for suffix, count in kinds.most_common())
        where = sorted({path.parent.name for path in self.not_read})
        return [f"pictures that are not read: {text}, in folder {some(where)}; {way_out(kinds)}"]

    @property
    def warnings(self) -> list[str]:
        """What else would be lost in silence."""
        found = []
        if self.unused:
            where = sorted({path.parent.name or "." for path in self.unused})
            found.append(f"images in no class: {len(self.unused)}, in folder {some(where)}")
        if self.special:
            one = short(self.special[0].name)
            found.append(f"pipes, sockets or devices that are called images: {len(self.special)}, {one} for one")
        return found


def beside(listing: Listing) -> Beside:
    """What is below the root and is not used. Skips hidden files and folders."""
    used = {*listing.files, *listing.left_out}
    unused, not_read, special, other = list[Path](), list[Path](), list[Path](), Counter[str]()
    for root, folders, names in os.walk(listing.root):
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__MACOSX")))
        for path in (Path(root, name) for name in sorted(names) if not name.startswith(".")):
            suffix = path.suffix.lower()
            if suffix in NOT_READ:
                not_read.append(path)
            elif suffix not in SUFFIXES:
                if path != listing.labels and path not in used:
                    other[suffix or "no suffix"] += 1
            elif is_special(path):
                special.append(path)
            elif path not in used:
                unused.append(path)
    by_count = dict(sorted(other.items(), key=lambda item: (-item[1], item[0])))
    return Beside(tuple(unused), tuple(not_read), tuple(special), by_count)


def way_out(suffixes: Mapping[str, int]) -> str:
    """How pictures with these suffixes can be read."""
    if all(suffix in (".heic", ".heif") for suffix in suffixes):
        return "pip install 'msgdas[heic]' reads them"
    return "convert them to PNG or JPEG"


def is_special(path: Path) -> bool:
    """Whether it is a pipe, socket or device, which may never end. What cannot be looked at is not."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def part_of(name: str) -> str | None:
    """The part that a folder, split or array of this name is; None: none."""
    return next((part for part, names in PARTS.items() if name.lower() in names), None)


def some(names: Sequence[str]) -> str:
    """``'a'``; ``'a', 'b', 'c' and 2 more``. Long names are cut."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{', '.join(map(short, names[:LISTED]))}{more}"


def short(name: str) -> str:
    """A name in quotes, cut in the middle if it is long."""
    return repr(name if len(name) <= 60 else f"{name[:28]}…{name[-28:]}")
