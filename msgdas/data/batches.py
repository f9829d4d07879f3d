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

from msgdas.data.ahead import ahead, available_cpus
from msgdas.data.augment import Augment, augment, normalise
from msgdas.data.images import AnyImages, ImageFiles, Images
from msgdas.errors import InputError

__all__ = ["Batches"]

WORTH_A_THREAD = 2**18  # bytes of a batch; handing over a smaller one takes as long as making it


class Batches:
    """Augmented, normalised batches of images held in memory or read from files by worker processes.

    On a GPU, images in memory move there if they take at most a quarter of its free memory. Otherwise a thread makes
    the next batch during a step, if a CPU is free and the batch is not tiny.

    A batch depends on seed, epoch and index alone, not on where the images are, so a search resumes in the middle of an
    epoch, bit for bit. Unreadable files are left out of their batch with a warning; if that leaves none, the next batch
    takes its place.

    Args:
        mean, std: ``(C,)``, for pixels in [0, 1].
        augment: augmentation, or ``None``.
        drop_last: leave out an incomplete last batch, unless it is the only one.
        cpus: CPUs that may be used; default: all that the process may use.

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
        cpus: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: use 1 or more")
        self.images = images.to(device) if _fits(images, torch.device(device)) else images
        self.batch_size, self.mean, self.std = batch_size, mean.to(device), std.to(device)
        self.augment, self.seed, self.shuffle = augment, seed, shuffle
        self.device, self._cpus = torch.device(device), cpus or available_cpus()
        self._fill = (mean * 255).round().to(self.images.labels.device, torch.uint8)
        full, rest = divmod(len(images), batch_size)
        self._count = full if full and (drop_last or not rest) else full + 1

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return self._count

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch from index ``start``: images ``(B, C, H, W)`` as float32 in channels_last, and
        labels ``(B,)`` as int64.

        Worker processes end with the iterator, even if it is closed early.

        Raises:
            InputError: a file cannot be read and ``on_bad_image`` is ``"stop"``, or no file can be read any more.
        """
        loaded = self._loaded(self._of_epoch(epoch), start)
        for pixels, labels, failures in ahead(loaded) if self._prefetch() else loaded:
            if isinstance(self.images, ImageFiles):
                self.images.report(failures)
            if not len(labels):
                raise InputError(f"none of {len(self.images)} image files can be read any more; {failures[0]}")
            pixels, labels = (t.to(self.device, non_blocking=True) for t in (pixels, labels))
            yield normalise(pixels, self.mean, self.std), labels

    def _prefetch(self) -> bool:
        """Whether a thread makes the next batch during a step."""
        if not isinstance(self.images, Images) or self.images.pixels.device.type != "cpu":
            return False
        free = self.device.type != "cpu" or torch.get_num_threads() < self._cpus
        return free and self.images.pixels[: self.batch_size].nbytes >= WORTH_A_THREAD

    def _of_epoch(self, epoch: int) -> _Epoch:
        count = len(self.images)
        order = torch.randperm(count, generator=_generator(self.seed, epoch)) if self.shuffle else torch.arange(count)
        order = order.to(self.images.labels.device)
        return _Epoch(self.images, order, len(self), self.batch_size, self.augment, self._fill, self.seed, epoch)

    def _loaded(self, batches: _Epoch, start: int) -> Iterator[_Bytes]:
        """The batches from index ``start``, pinned if they are copied to a GPU."""
        indices = range(start, batches.count)
        workers = max(0, min(self.images.workers, len(indices)))
        pin = self.device.type == "cuda" and batches.order.device.type == "cpu"
        if not workers and not pin:
            return map(batches.__getitem__, indices)  # the loader's overhead is a tenth of a batch's time
        loader = DataLoader(
            batches,
            batch_size=None,
            sampler=indices,
            num_workers=workers,
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,  # starts at once
            worker_init_fn=_ignore_signals,
            pin_memory=pin,
            generator=torch.Generator(),  # else it draws from the global one
        )
        with _signals_held():
            return iter(loader)


_Bytes = tuple[Tensor, Tensor, list[str]]  # uint8 pixels, labels, failures


@dataclass(frozen=True)
class _Epoch(Dataset[_Bytes]):
    """The batches of an epoch by index, before normalisation. Worker processes get this."""

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
            generator = _generator(self.seed, self.epoch, 1 + index)  # 0 is that of the order
            pixels = augment(pixels, self.augment, self.fill, generator)
        return pixels, labels, failures

    def _readable(self, index: int) -> _Bytes:
        """The first batch with a readable image, from ``index`` on and then from the start; empty if there is none."""
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
    """Ignore Ctrl-C and SIGTERM, which reach all processes of a group: the main one finishes its step, which needs
    batches, and then ends its workers."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Block the signals for processes started inside, so that none ends a worker that does not ignore them yet. This
    process gets them afterwards."""
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
