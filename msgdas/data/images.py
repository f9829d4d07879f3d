"""Images held in memory, and a data set of three parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.model_selection import StratifiedShuffleSplit
from torch import Tensor

from msgdas.data.augment import Augment
from msgdas.errors import InputError

__all__ = ["DataSet", "Images", "split"]


@dataclass(frozen=True)
class Images:
    """Images of one part. ``pixels``: uint8 ``(N, C, H, W)``; ``labels``: int64 ``(N,)``."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> Images:
        """The images at ``index``, in that order."""
        return Images(self.pixels[index], self.labels[index])

    def to(self, device: str | torch.device) -> Images:
        """On another device."""
        return Images(self.pixels.to(device), self.labels.to(device))


@dataclass(frozen=True)
class DataSet:
    """Training, validation and test parts with their class names.

    Attributes:
        mean, std: per channel, float32 ``(C,)``, of the training part scaled to [0, 1].
        augment: what training does to the images.
    """

    name: str
    classes: tuple[str, ...]
    train: Images
    val: Images
    test: Images
    mean: Tensor
    std: Tensor
    augment: Augment

    @property
    def channels(self) -> int:
        """1 for grey images, else 3."""
        return self.train.pixels.shape[1]

    @property
    def image_size(self) -> int:
        """Side of the square images in pixels."""
        return self.train.pixels.shape[-1]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def halves(self, seed: int, limit: int | None = None) -> tuple[Images, Images]:
        """The weight half and the alpha half of the training part: disjoint, stratified by class, of the same size.

        Args:
            limit: images in each half; default: all.

        Raises:
            InputError: ``limit`` is out of range.
        """
        size = len(self.train) // 2 if limit is None else limit
        if not self.num_classes <= size <= len(self.train) // 2:
            raise InputError(
                f"images={size} in each half: use {self.num_classes} (one per class) to {len(self.train) // 2} (all)"
            )
        first, second = split(self.train.labels, size, size, seed)
        return self.train.take(first), self.train.take(second)


def split(labels: Tensor, first: int, second: int, seed: int) -> tuple[Tensor, Tensor]:
    """Disjoint random indices of ``first`` and ``second`` images, each class in proportion."""
    splitter = StratifiedShuffleSplit(1, train_size=first, test_size=second, random_state=seed)
    a, b = next(splitter.split(np.zeros(len(labels)), labels.numpy()))
    return torch.from_numpy(a), torch.from_numpy(b)
