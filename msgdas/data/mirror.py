"""Whether images may be mirrored in training: not where left and right mean something."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from msgdas.data.images import AnyImages, ImageFiles

__all__ = ["MIRROR", "SIDE", "Mirroring", "decide"]

MIRROR = ("auto", "on", "off")
NAMES_OF_SIDES = {
    "left",
    "right",
    "lhs",
    "rhs",
    "clockwise",
    "counterclockwise",
    "anticlockwise",
    "cw",
    "ccw",
    "east",
    "west",
}
LEAST = 50  # training images a class, below which the pictures cannot tell
MOST = 200  # images a class that are looked at
MOST_IMAGES = 4000  # in all
SIDE = 16  # pixels
HELD_OUT = 10  # images of a class, below which it has no say
RIDGE = 0.05  # of the mean eigenvalue


class Mirroring(NamedTuple):
    """Whether to mirror at random, and why, in words."""

    on: bool
    why: str


def decide(classes: Sequence[str], train: AnyImages) -> Mirroring:
    """Decide whether a training may mirror its images. Deterministic; takes a second or so.

    It may not if class names speak of sides, or are all letters or numbers; or if a linear classifier of small grey
    pictures, trained without mirroring, sends the mirrored images of a class mostly to another class. Where neither can
    be told, it may not either.

    Args:
        classes: class names.
        train: the training part.
    """
    return _by_names(classes) or _by_images(classes, train)


def _by_names(classes: Sequence[str]) -> Mirroring | None:
    for name in classes:
        words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
        if NAMES_OF_SIDES.intersection(words):
            return Mirroring(False, f"class {name!r} names a side")
    if all(len(name) == 1 or name.isdecimal() for name in classes):
        return Mirroring(False, f"classes {classes[0]!r}, {classes[1]!r}, … may be letters or numbers")
    return None


def _by_images(classes: Sequence[str], train: AnyImages) -> Mirroring:
    counts = torch.bincount(train.labels, minlength=len(classes))
    if int(counts.median()) < LEAST:
        return Mirroring(False, f"under {LEAST} images a class cannot tell whether a mirrored one keeps its class")
    pixels, labels = _small(train, min(MOST, max(2 * HELD_OUT, MOST_IMAGES // len(classes))))
    fitted, held = torch.arange(len(labels)) % 2 == 0, torch.arange(len(labels)) % 2 == 1
    weights = _fit(pixels[fitted], labels[fitted], len(classes))
    truth = labels[held]
    plain, mirrored = (_classify(weights, some[held]) for some in (pixels, pixels.flip(-1)))
    accuracy, chance = float((plain == truth).double().mean()), float(truth.bincount().max()) / len(truth)
    if accuracy < chance + 3 * (chance * (1 - chance) / len(truth)) ** 0.5:
        return Mirroring(False, "a simple classifier cannot tell whether a mirrored image keeps its class")
    for label, name in enumerate(classes):
        of_class = truth == label
        if int(of_class.sum()) >= HELD_OUT:
            before, after = (_shares(found[of_class], len(classes)) for found in (plain, mirrored))
            other = int(after.argmax())
            if other != label and after[other] > 0.5 > before[other]:
                return Mirroring(False, f"mirrored images of class {name!r} look like class {classes[other]!r}")
    return Mirroring(True, "mirrored images keep their class")


def _small(train: AnyImages, most: int) -> tuple[Tensor, Tensor]:
    """Up to ``most`` images of each class as small grey pictures, float64 ``(N, SIDE, SIDE)``, and their labels, in an
    order in which those of a class alternate."""
    if isinstance(train, ImageFiles):
        train = replace(
            train, form=replace(train.form, channels=1, height=SIDE, width=SIDE)
        )  # decoded at this size, several times as fast
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(train), generator=generator)
    order = order[train.labels[order].argsort(stable=True)]
    place = torch.cat([torch.arange(n) for n in train.labels.bincount().tolist()])
    pixels, labels, _ = train.gather(order[place < most])
    grey = pixels.float().mean(1, keepdim=True)
    return F.interpolate(grey, (SIDE, SIDE), mode="bilinear", antialias=True)[:, 0].double() / 255, labels


def _features(pixels: Tensor) -> Tensor:
    flat = pixels.flatten(1)
    return torch.cat([flat - flat.mean(1, keepdim=True), torch.ones(len(flat), 1, dtype=flat.dtype)], 1)


def _fit(pixels: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Ridge regression of one-hot classes, ``(features, classes)``, every class with the same weight."""
    x, y = _features(pixels), F.one_hot(labels, classes).double()
    weight = (1 / y.sum(0).clamp(min=1))[labels][:, None]
    gram = x.T @ (weight * x)
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram + ridge, x.T @ (weight * y))


def _classify(weights: Tensor, pixels: Tensor) -> Tensor:
    return (_features(pixels) @ weights).argmax(1)


def _shares(found: Tensor, classes: int) -> Tensor:
    return found.bincount(minlength=classes).double() / len(found)
