"""Find images that are the same, or nearly so, among files."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import imagehash
import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from msgdas.data.decode import UNREADABLE, OnDone, is_grey, refuse_large
from msgdas.data.listing import Listing, short

__all__ = ["Facts", "Look", "array_facts", "copies_of", "distinct", "look_all", "near_copies_of"]

CHUNK = 16  # files per task of a thread
DRAFT = (256, 256)  # a large JPEG is decoded at ½, ¼ or ⅛ if that is still this large
MOST_LOOKED = 100_000  # images that are compared
BITS, APART = 64, 4  # of a perceptual hash; in so many those of near-copies may differ
ALIKE = 0.992  # least correlation of their small grey pictures
SMALL = 16  # side of those
FLAT = 2.0  # standard deviation, of 255 levels, below which a picture shows nothing
MOST_PAIRS = 2_000_000  # that are compared


class Look(NamedTuple):
    """What tells a decoded image from others.

    Attributes:
        digest: SHA-256 of the upright pixels, independent of the mode they are stored in.
        hash: perceptual hash, ``BITS`` bits.
        small: grey picture, uint8 ``(SMALL²,)``.
    """

    digest: bytes
    hash: int
    small: npt.NDArray[np.uint8]


class Facts(NamedTuple):
    """Facts of one readable file. ``look``: ``None`` if it was not decoded."""

    size: tuple[int, int]
    format: str
    grey: bool
    transparent: bool
    animated: bool
    rotated: bool
    look: Look | None


def look_all(paths: Sequence[Path], on_file: OnDone | None = None) -> list[Facts | str]:
    """The facts of each file, or why it cannot be read, in as many threads as torch uses.

    Of more than 100,000 files, so many are decoded, evenly spaced, and the others only opened.
    """
    every = max(1, -(-len(paths) // MOST_LOOKED))

    def work(start: int) -> list[Facts | str]:
        return [_facts(paths[i], decode=i % every == 0) for i in range(start, min(start + CHUNK, len(paths)))]

    found = list[Facts | str]()
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for some in pool.map(work, range(0, len(paths), CHUNK)):
            found += some
            if on_file:
                on_file(len(found), len(paths))
    return found


def _facts(path: Path, *, decode: bool) -> Facts | str:
    try:
        with Image.open(path) as image:
            size, grey, kind = image.size, is_grey(image), image.format or "?"
            if decode:
                image.draft(None, DRAFT)
                refuse_large(image)
                image.load()
            return Facts(
                size=size,
                format=kind,
                grey=grey,
                transparent=image.has_transparency_data,
                animated=getattr(image, "is_animated", False) and kind != "MPO",  # a phone's photo with its preview
                rotated=image.getexif().get(ExifTags.Base.Orientation) in range(2, 9),
                look=_look(ImageOps.exif_transpose(image)) if decode else None,
            )
    except UnidentifiedImageError:
        return "not an image" if path.stat().st_size else "empty file"
    except UNREADABLE as error:
        return getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__


def array_facts(pixels: Tensor) -> Facts:
    """The facts of one image in memory, uint8 ``(C, H, W)``."""
    channels, height, width = pixels.shape
    grey = Image.fromarray(pixels.float().mean(0).round().byte().numpy())
    digest = hashlib.sha256(f"{tuple(pixels.shape)}".encode() + pixels.contiguous().numpy().tobytes()).digest()
    look = _look(grey)._replace(digest=digest)
    return Facts((width, height), "array", channels == 1, transparent=False, animated=False, rotated=False, look=look)


def _look(image: Image.Image) -> Look:
    if not image.mode.startswith(("I", "F")):  # those have more than 8 bits
        image = image.convert("RGBA")
    digest = hashlib.sha256(f"{image.mode} {image.size}".encode())
    digest.update(image.tobytes())
    grey = image.convert("L")
    bits = imagehash.phash(grey).hash.flatten()
    small = np.asarray(grey.resize((SMALL, SMALL), Image.Resampling.BOX)).flatten()
    return Look(digest.digest(), int.from_bytes(np.packbits(bits).tobytes(), "big"), small)


def distinct(listing: Listing) -> Listing:
    """The listing without copies and near-copies: one of each group is kept, of test rather than of val, of val rather
    than of train; none if they are of different classes. What was left out is a warning.
    """
    files = [(part, *file) for part in ("test", "val", "train") for file in listing.parts.get(part, [])]
    facts = look_all([path for _, path, _ in files])
    looks = [one.look if isinstance(one, Facts) else None for one in facts]
    out, torn = set[int](), 0
    pairs = (pair for groups in (copies_of(looks), near_copies_of(looks)) for pair in _pairs(groups))
    for group in _joined(len(files), pairs):
        differ = len({files[i][2] for i in group}) > 1
        torn += differ
        out.update(group if differ else group[1:])
    if not out:
        return listing
    kept = [file for i, file in enumerate(files) if i not in out]
    parts = {part: [(path, label) for of, path, label in kept if of == part] for part in listing.parts}
    said = f"{len(out)} of {len(files)} images left out as copies of others"
    said += f", {torn} groups of them entirely because their classes differ" if torn else ""
    named = f"; {short(str(files[min(out)][1].relative_to(listing.root)))} for one"
    left_out = listing.left_out | {files[i][1] for i in out}
    return replace(listing, parts=parts, warnings=(*listing.warnings, said + named), left_out=left_out)


def _pairs(groups: Iterable[Sequence[int]]) -> Iterator[tuple[int, int]]:
    return ((group[0], other) for group in groups for other in group[1:])


def copies_of(looks: Sequence[Look | None]) -> list[list[int]]:
    """Indices of images with the same pixels, by group, in their order."""
    groups = defaultdict[bytes, list[int]](list)
    for i, look in enumerate(looks):
        if look is not None:
            groups[look.digest].append(i)
    return [group for group in groups.values() if len(group) > 1]


def near_copies_of(looks: Sequence[Look | None]) -> list[list[int]]:
    """Indices of images that look the same but have other pixels, by group: resized, recompressed, slightly edited.

    Two images are compared if their perceptual hashes differ in at most 4 of 64 bits, and look the same if their small
    grey pictures correlate by 0.992. At most two million pairs are compared. Copies with the same pixels are in a group
    with the first of them alone.
    """
    first: dict[bytes, int] = {}
    for i, look in enumerate(looks):
        if look is not None and look.small.std() >= FLAT:
            first.setdefault(look.digest, i)
    index = list(first.values())
    found = [looks[i] for i in index]
    pairs = _alike([look for look in found if look is not None])
    return [[index[i] for i in group] for group in _joined(len(index), pairs)]


def _alike(looks: Sequence[Look]) -> Iterator[tuple[int, int]]:
    if not looks:
        return
    hashes = np.array([look.hash for look in looks], np.uint64)
    small = np.stack([look.small for look in looks]).astype(np.float32)
    small -= small.mean(1, keepdims=True)
    small /= np.linalg.norm(small, axis=1, keepdims=True)
    left = MOST_PAIRS
    for one, other in _candidates(hashes):
        one, other = one[:left], other[:left]
        left -= len(one)
        near = np.bitwise_count(hashes[one] ^ hashes[other]) <= APART
        one, other = one[near], other[near]
        alike = (small[one] * small[other]).sum(1) >= ALIKE
        yield from zip(one[alike].tolist(), other[alike].tolist())
        if not left:
            return


def _candidates(hashes: npt.NDArray[np.uint64]) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Pairs that agree in one of five bands of the hash: all that differ in at most four bits do."""
    edges = np.linspace(0, BITS, APART + 2).astype(int)
    for low, high in pairwise(edges):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")
        ends = np.flatnonzero(np.diff(band[order])) + 1
        for same in np.split(order, ends):
            for place in range(len(same) - 1):
                others = same[place + 1 :]
                yield np.full(len(others), same[place]), others


def _joined(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Groups that the pairs connect."""
    root = list(range(count))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for one, other in pairs:
        a, b = sorted((find(one), find(other)))
        root[b] = a
    groups = defaultdict[int, list[int]](list)
    for i in range(count):
        groups[find(i)].append(i)
    return [group for group in groups.values() if len(group) > 1]
