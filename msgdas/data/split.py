"""Random stratified splits of a data set."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from msgdas.data.listing import Files, Listing
from msgdas.errors import InputError

__all__ = ["FRACTIONS", "hold_out", "split", "split_files"]

_Integers = npt.NDArray[np.int64]
TURNS = 5  # ways of shuffling groups that are compared
FRACTIONS = {"test": 0.2, "val": 0.15}  # defaults: of train, and of the rest of train


def split_files(listing: Listing, fractions: Mapping[str, float], seed: int) -> dict[str, Files]:
    """The files by part, missing parts split off train before anything is decoded, so that no image is held twice.

    Raises:
        InputError: as `hold_out`.
    """
    train = listing.parts["train"]
    missing = {part: fraction for part, fraction in fractions.items() if part not in listing.parts}
    labels = torch.tensor([label for _, label in train], dtype=torch.int64)
    groups = (
        [listing.groups.get(path) or path.relative_to(listing.root).as_posix() for path, _ in train]
        if listing.groups
        else None
    )
    index = hold_out(labels, listing.classes, missing, seed, groups)
    return {**listing.parts, **{part: [train[i] for i in chosen.tolist()] for part, chosen in index.items()}}


def hold_out(
    labels: Tensor,
    classes: Sequence[str],
    fractions: Mapping[str, float],
    seed: int,
    groups: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    """Split parts off a training part.

    Args:
        labels: int64 ``(N,)``.
        fractions: part → its fraction of the images that the parts before it left.
        groups: of each image; those of a group stay in one part, whose size is then about the fraction.

    Returns:
        Ascending indices of each part and of the rest, ``"train"``.

    Raises:
        InputError: the fractions leave nothing, or a class is too small to be in every part and both halves of train.
    """
    from sklearn.model_selection import train_test_split  # lazy: it takes a second

    if not all(0 < f < 1 for f in fractions.values()):
        shares = ", ".join(f"{part}_fraction={f}" for part, f in fractions.items())
        raise InputError(f"{shares}: use fractions above 0 and below 1")
    if not fractions:
        return {"train": torch.arange(len(labels))}
    counts = torch.bincount(labels, minlength=len(classes)).tolist()
    _refuse_small(counts, classes, 2 + len(fractions), f"split into train, {', '.join(fractions)}")
    rest, parts = np.arange(len(labels)), dict[str, Tensor]()
    for part, fraction in fractions.items():
        if groups is not None:
            rest, out = _hold_out_groups(
                labels.numpy(), np.unique(groups, return_inverse=True)[1], rest, fraction, seed
            )
            parts[part] = torch.from_numpy(out)
            continue
        size = max(len(classes), round(len(rest) * fraction))
        if len(rest) - size < len(classes):
            raise InputError(f"{part}_fraction={fraction} of {len(rest)} images leaves too few for training: lower it")
        rest, out = train_test_split(rest, test_size=size, stratify=labels.numpy()[rest], random_state=seed)
        rest.sort()
        parts[part] = torch.from_numpy(np.sort(out))
    parts["train"] = torch.from_numpy(rest)
    for part, index in parts.items():
        got = torch.bincount(labels[index], minlength=len(classes)).tolist()
        for name, count, total in zip(classes, got, counts):
            if count < (2 if part == "train" else 1) and groups is not None:
                raise InputError(
                    f"class {name!r} has {count} images in {part} when groups are kept together: "
                    "it needs images of more groups; add some, or leave out --group"
                )
            if count < (2 if part == "train" else 1):
                way = "lower the fractions" if part == "train" else f"raise {part}_fraction={fractions[part]}"
                raise InputError(
                    f"class {name!r} has {total} images, of which {count} fall to {part}: add some, or {way}"
                )
    return parts


def _hold_out_groups(
    labels: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    rest: npt.NDArray[np.int64],
    fraction: float,
    seed: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Whole groups with about ``fraction`` of the images, and the others: of several ways that which has most classes
    on both sides, then that which is nearest in size."""
    from sklearn.model_selection import StratifiedGroupKFold  # lazy: it takes a second

    count = len(np.unique(groups[rest]))
    if count < 2:
        raise InputError("all images are of one group: it cannot be split; leave out --group, or give parts")
    folds = max(2, min(round(1 / fraction), count))
    ways = []
    for turn in range(TURNS):
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed + turn)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of rare classes: the ways are compared
            ways += [(rest[a], rest[b]) for a, b in splitter.split(rest, labels[rest], groups[rest])]
    both = [len(np.unique(labels[kept])) + len(np.unique(labels[out])) for kept, out in ways]
    off = [abs(len(out) / len(rest) - fraction) for _, out in ways]
    kept, out = ways[min(range(len(ways)), key=lambda i: (-both[i], round(off[i], 2), i))]
    return np.sort(kept), np.sort(out)


def _refuse_small(counts: Sequence[int], classes: Sequence[str], least: int, purpose: str) -> None:
    name, count = min(zip(classes, counts), key=lambda pair: pair[1])
    if count < least:
        raise InputError(f"class {name!r} has too few images ({count}) to be {purpose}: give it {least} or more")


def split(labels: Tensor, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two disjoint random sets of ``size`` indices, stratified, with every class in both.

    Args:
        labels: int64 ``(N,)``, each class at least twice.
        size: from the number of classes to ``N // 2``.
    """
    from sklearn.model_selection import StratifiedShuffleSplit  # lazy: it takes a second

    splitter = StratifiedShuffleSplit(1, train_size=size, test_size=size, random_state=seed)
    first, second = next(splitter.split(np.zeros(len(labels)), labels.numpy()))
    others = np.setdiff1d(np.arange(len(labels)), np.concatenate([first, second]))
    order = np.concatenate([first, second, others])
    _complete(order, slice(0, size), labels.numpy())
    _complete(order, slice(size, 2 * size), labels.numpy())
    return torch.from_numpy(order[:size]), torch.from_numpy(order[size : 2 * size])


def _complete(order: npt.NDArray[np.int64], part: slice, labels: npt.NDArray[np.int64]) -> None:
    """Swap an image of each class that ``order[part]`` lacks with one of the part's largest class, in place.

    Takes the last image of the class, so from the other half only if that has all of them, which is two or more.
    """
    for missing in np.setdiff1d(labels, labels[order[part]]):
        inside = labels[order[part]]
        largest = np.bincount(inside).argmax()
        out = part.start + np.flatnonzero(inside == largest)[-1]
        into = np.flatnonzero(labels[order] == missing)[-1]
        order[[out, into]] = order[[into, out]]
