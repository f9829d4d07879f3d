"""Recipes: all hyperparameters of a training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from msgdas.errors import InputError
from msgdas.search.schedules import cosine, linear

__all__ = ["CLASS_WEIGHTS", "RECIPES", "Recipe"]

CLASS_WEIGHTS = ("none", "balanced")


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of training a derived network by SGD.

    Attributes:
        batch_size: for training, validation and test.
        lr: peak learning rate.
        rise: fraction of the steps in which the learning rate rises linearly from ``lr / 10`` to ``lr``; then it falls
            to 0 as a cosine.
        momentum, nesterov, weight_decay: of SGD.
        clip: largest gradient norm.
        label_smoothing: of the training loss.
        cutout: side of the square cut out of each training image, as a fraction of the image's side; 0: as the data
            set's own augmentation says.
        auxiliary: weight of the auxiliary head's loss, for networks that have one; 0: the head is not trained.
        drop_path: final probability of dropping a path (`torchvision.ops.StochasticDepth`); it rises linearly from 0
            in the first epoch.
        class_weights: of the training loss, ``"none"`` or ``"balanced"`` (`DataSet.class_weights`).

    Raises:
        InputError: a value is out of its range.
    """

    epochs: int = 60
    batch_size: int = 64
    lr: float = 0.1
    rise: float = 0.05
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    clip: float = 5.0
    label_smoothing: float = 0.1
    cutout: float = 0.0
    auxiliary: float = 0.0
    drop_path: float = 0.0
    class_weights: str = "none"

    def __post_init__(self) -> None:
        checks = {
            "epochs": (self.epochs >= 1, "use 1 or more"),
            "batch_size": (self.batch_size >= 1, "use 1 or more"),
            "lr": (0 < self.lr < math.inf, "use a number above 0"),
            "rise": (0 <= self.rise < 1, "the fraction of the steps in which lr rises; use 0 or more, below 1"),
            "momentum": (0 <= self.momentum < 1, "use 0 or more, below 1"),
            "nesterov": (not self.nesterov or self.momentum > 0, "it needs a momentum; use False, or momentum above 0"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "use 0 or more"),
            "clip": (self.clip > 0, "use a number above 0; inf clips nothing"),
            "label_smoothing": (0 <= self.label_smoothing <= 1, "use 0 to 1"),
            "cutout": (0 <= self.cutout <= 1, "the square's side as a fraction of the image's; use 0 to 1"),
            "auxiliary": (0 <= self.auxiliary < math.inf, "use 0 or more"),
            "drop_path": (0 <= self.drop_path < 1, "a probability; use 0 or more, below 1"),
            "class_weights": (self.class_weights in CLASS_WEIGHTS, f"use {' or '.join(map(repr, CLASS_WEIGHTS))}"),
        }
        for name, (good, way_out) in checks.items():
            if not good:
                raise InputError(f"{name}={getattr(self, name)!r}: {way_out}")

    def lr_at(self, progress: float) -> float:
        """Learning rate at ``progress``, the fraction of the training done."""
        if progress < self.rise:
            return linear(self.lr / 10, self.lr)(progress / self.rise)
        return cosine(self.lr, 0.0)((progress - self.rise) / (1 - self.rise))

    def drop_path_at(self, epoch: int) -> float:
        """Drop path probability in ``epoch``, counted from 0."""
        return self.drop_path * epoch / self.epochs


RECIPES: dict[str, Recipe] = {
    "short": Recipe(),
    # Liu et al. 2019, arXiv:1806.09055, on CIFAR-10; cutout is 16 of 32 pixels
    "darts": Recipe(
        epochs=600,
        batch_size=96,
        lr=0.025,
        rise=0.0,
        nesterov=False,
        weight_decay=3e-4,
        label_smoothing=0.0,
        cutout=0.5,
        auxiliary=0.4,
        drop_path=0.2,
    ),
}
