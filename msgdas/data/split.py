"""Random parts of a data set, each class in proportion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from msgdas.errors import InputError

__all__ = ["hold_out"]


def hold_out(labels: Tensor, classes: Sequence[str], fractions: Mapping[str, float], seed: int) -> dict[str, Tensor]:
    """Split parts off a training part.

    Args:
        labels: int64 ``(N,)``.
        fractions: part name → its share of the images that the parts before it left.

    Returns:
        Ascending indices of each part and of what stays, ``"train"``.

    Raises:
        InputError: the fractions leave nothing, or a class is too small to be in every part and both halves of train.
    """
    if not all(0 < f < 1 for f in fractions.values()):
        shares = ", ".join(f"{part}_fraction={f}" for part, f in fractions.items())
        raise InputError(f"{shares}: use fractions above 0 and below 1")
    if not fractions:
        return {"train": torch.arange(len(labels))}
    counts = torch.bincount(labels, minlength=len(classes)).tolist()
    _refuse_small(counts, classes, 2 + len(fractions), f"split into train, {', '.join(fractions)}")
    rest, parts = np.arange(len(labels)), dict[str, Tensor]()
    for part, fraction in fractions.items():
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
            if count < (2 if part == "train" else 1):
                way = "lower the fractions" if part == "train" else f"raise {part}_fraction={fractions[part]}"
                raise InputError(
                    f"class {name!r} has {total} images, of which {count} fall to {part}: add some, or {way}"
                )
    return parts


def _refuse_small(counts: Sequence[int], classes: Sequence[str], least: int, purpose: str) -> None:
    name, count = min(zip(classes, counts), key=lambda pair: pair[1])
    if count < least:
        raise InputError(f"class {name!r} has too few images ({count}) to be {purpose}: give it {least} or more")
