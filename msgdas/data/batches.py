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

from msgdas.data.ahead import ahead, cpus
from msgdas.data.augment import Augment, augment, normalise
from msgdas.data.images import AnyImages, ImageFiles, Images
from msgdas.errors import InputError

__all__ = ["Batches"]

WORTH_A_THREAD = 2**18  # bytes of a batch: 192 KiB, 64 images of 32 × 32 pixels, are made in the time of handing over


class Batches:
    """Augmented, normalised batches of images, which are held in memory or read from files by worker processes.

    On a GPU the images in memory live there if they take at most a quarter of what is free of its own. Of images that
    stay in the computer's memory the next batch is made in a thread beside the step, if there is a CPU that the step
    does not use and the batch is not tiny.

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
        self.images = images.to(device) if _fits(images, torch.device(device)) else images
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
        loaded = self._loaded(self._of_epoch(epoch), start)
        for pixels, labels, failures in ahead(loaded) if self._beside() else loaded:
            if isinstance(self.images, ImageFiles):
                self.images.report(failures)
            if not len(labels):
                raise InputError(f"none of {len(self.images)} image files can be read any more; {failures[0]}")
            pixels, labels = (t.to(self.device, non_blocking=True) for t in (pixels, labels))
            yield normalise(pixels, self.mean, self.std), labels

    def _beside(self) -> bool:
        """Whether a thread makes the next batch beside the step."""
        if not isinstance(self.images, Images) or self.images.pixels.device.type != "cpu":
            return False
        free = self.device.type != "cpu" or torch.get_num_threads() < cpus()
        return free and self.images.pixels[: self.batch_size].nbytes >= WORTH_A_THREAD

    def _of_epoch(self, epoch: int) -> _Epoch:
        count = len(self.images)
        order = torch.randperm(count, generator=_generator(self.seed, epoch)) if self.shuffle else torch.arange(count)
        order = order.to(self.images.labels.device)
        return _Epoch(self.images, order, len(self), self.batch_size, self.augment, self._fill, self.seed, epoch)

    def _loaded(self, batches: _Epoch, start: int) -> Iterator[_Bytes]:
        """From index ``start``, each in the memory that it is copied to the device from."""
        indices = range(start, batches.count)
        workers = max(0, min(self.images.workers, len(indices)))
        pin = self.device.type == "cuda" and batches.order.device.type == "cpu"
        if not workers and not pin:
            return map(batches.__getitem__, indices)  # what the loader does of its own takes a tenth of a batch's time
        loader = DataLoader(
            batches,
            batch_size=None,
            sampler=indices,
            num_workers=workers,
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,  # starts in no time
            worker_init_fn=_ignore_signals,
            pin_memory=pin,
            generator=torch.Generator(),  # or it would draw from the global one
        )
        with _signals_held():
            return iter(loader)


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


def _fits(images: AnyImages, device: torch.device) -> bool:
    if isinstance(images, ImageFiles) or device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return images.pixels.nbytes <= free // 4


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
