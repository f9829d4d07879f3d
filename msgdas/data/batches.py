"""Batches as a pure function of seed, epoch and index."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from msgdas.data.augment import Augment, augment, normalise
from msgdas.data.images import Images

__all__ = ["Batches"]


class Batches:
    """Augmented, normalised batches of images held in memory (on ``device`` where that is a GPU).

    What a batch holds depends on seed, epoch and its index alone, so a search goes on in the middle of an epoch, bit
    for bit.

    Args:
        mean, std: ``(C,)`` in [0, 1] units.
        drop_last: leave out a last batch that is not full, unless it is the only one.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        *,
        mean: Tensor,
        std: Tensor,
        augment: Augment | None = None,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        device: str | torch.device = "cpu",
    ) -> None:
        self.images = images.to(device)
        self.batch_size, self.mean, self.std = batch_size, mean, std
        self.augment, self.seed, self.shuffle = augment, seed, shuffle
        self._fill = (mean * 255).round().to(torch.uint8)
        full, rest = divmod(len(images), batch_size)
        self._count = full if full and (drop_last or not rest) else full + 1

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._count

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch from index ``start``: ``(B, C, H, W)`` float32 channels_last, ``(B,)`` int64
        labels."""
        count = len(self.images)
        order = torch.randperm(count, generator=_generator(self.seed, epoch)) if self.shuffle else torch.arange(count)
        order = order.to(self.images.labels.device)
        for index in range(start, len(self)):
            part = self.images.take(order[index * self.batch_size : (index + 1) * self.batch_size])
            pixels = part.pixels
            if self.augment is not None:
                pixels = augment(
                    pixels, self.augment, self._fill, _generator(self.seed, epoch, 1 + index)
                )  # 0 is the order's
            yield normalise(pixels, self.mean, self.std), part.labels


def _generator(*key: int) -> torch.Generator:
    (seed,) = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(seed))
