"""Batches as a pure function of seed, epoch and index."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from msgdas.data.augment import Augment, augment, normalise
from msgdas.data.images import AnyImages, ImageFiles
from msgdas.errors import InputError

__all__ = ["Batches"]


class Batches:
    """Augmented, normalised batches of images, which are held in memory (on ``device`` where that is a GPU) or read
    from files by worker processes.

    What a batch holds depends on seed, epoch and its index alone, not on where the images are, so a search goes on in
    the middle of an epoch, bit for bit. A file that cannot be read is left out of its batch with a
    warning; where that leaves none, the next batch takes its place.

    Args:
        mean, std: ``(C,)`` in [0, 1] units.
        drop_last: leave out a last batch that is not full, unless it is the only one.

    Raises:
        InputError: ``batch_size`` is less than 1.
    """

    def __init__(
        self,
        images: AnyImages,
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
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: use 1 or more")
        self.images = images.to(device)
        self.batch_size, self.mean, self.std = batch_size, mean.to(device), std.to(device)
        self.augment, self.seed, self.shuffle = augment, seed, shuffle
        self.device = torch.device(device)
        self._fill = (mean * 255).round().to(self.images.labels.device, torch.uint8)
        full, rest = divmod(len(images), batch_size)
        self._count = full if full and (drop_last or not rest) else full + 1

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._count

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch from index ``start``: ``(B, C, H, W)`` float32 channels_last, ``(B,)`` int64
        labels.

        Worker processes end with the iterator, also when it is closed early.

        Raises:
            InputError: a file cannot be read and is not to be left out, or no file can be read any more.
        """
        with _signals_held():
            loaded = iter(self._loader(epoch, start))
        for pixels, labels, failures in loaded:
            if isinstance(self.images, ImageFiles):
                self.images.report(failures)
            if not len(labels):
                raise InputError(f"none of {len(self.images)} image files can be read any more; {failures[0]}")
            pixels, labels = (t.to(self.device, non_blocking=True) for t in (pixels, labels))
            yield normalise(pixels, self.mean, self.std), labels

    def _loader(self, epoch: int, start: int) -> DataLoader[_Bytes]:
        count = len(self.images)
        order = torch.randperm(count, generator=_generator(self.seed, epoch)) if self.shuffle else torch.arange(count)
        order = order.to(self.images.labels.device)
        workers = max(0, min(self.images.workers, len(self) - start))
        return DataLoader(
            _Epoch(self.images, order, len(self), self.batch_size, self.augment, self._fill, self.seed, epoch),
            batch_size=None,
            sampler=range(start, len(self)),
            num_workers=workers,
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,  # starts in no time
            worker_init_fn=_ignore_signals,
            pin_memory=workers > 0 and self.device.type == "cuda",
            generator=torch.Generator(),  # or it would draw from the global one
        )


_Bytes = tuple[Tensor, Tensor, list[str]]  # uint8 pixels, labels, failures


@dataclass(frozen=True)
class _Epoch(Dataset[_Bytes]):
    """The batches of an epoch by index, before they are normalised. This is what a worker process gets."""

    images: AnyImages
    order: Tensor
    count: int
    batch_size: int
    augment: Augment | None
    fill: Tensor
    seed: int
    epoch: int

    def __getitem__(self, index: int) -> _Bytes:
        pixels, labels, failures = self._readable(index)
        if self.augment is not None:
            generator = _generator(self.seed, self.epoch, 1 + index)  # 0 is the order's
            pixels = augment(pixels, self.augment, self.fill, generator)
        return pixels, labels, failures

    def _readable(self, index: int) -> _Bytes:
        """The first batch with an image that can be read, from ``index`` on and round; empty if there is none."""
        failures = list[str]()
        for other in chain(range(index, self.count), range(index)):
            some = self.order[other * self.batch_size : (other + 1) * self.batch_size]
            pixels, labels, bad = self.images.gather(some)
            failures += bad
            if len(labels):
                break
        return pixels, labels, failures


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _ignore_signals(worker: int) -> None:
    """Ctrl-C and SIGTERM reach all processes of a group; the main one ends its step with the batches it still gets,
    and then its workers."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _signals_held() -> Iterator[None]:
    """What starts inside never gets them, so none ends a worker that does not ignore them yet; this process gets them
    afterwards."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _generator(*key: int) -> torch.Generator:
    (seed,) = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(seed))
