"""The loop around a search: epochs, metrics, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch

from msgdas.data import Batches, DataSet, Images
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.runs import Run, stop_on_signals
from msgdas.search.schedules import at
from msgdas.search.search import Batch, Search

__all__ = ["Means", "Stopped", "estimate_seconds", "fit"]

Record = dict[str, Any]
MONITORED = 2000  # images of the validation part that each epoch's derived sub-graph is measured on
CHECKPOINT_SECONDS = 600.0  # a checkpoint at every epoch's end, and within an epoch at least this often


class Stopped(Exception):
    """A signal ended the loop after a whole step; the run is saved. ``signal``: its number."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


class Means:
    """Running means by name, which a checkpoint can hold."""

    def __init__(self, sums: dict[str, list[float]] | None = None) -> None:
        self.sums = sums or {}

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            total = self.sums.setdefault(name, [0.0, 0.0])
            total[0] += value
            total[1] += 1

    def get(self, name: str) -> float | None:
        total, count = self.sums.get(name, (0.0, 0.0))
        return total / count if count else None


def fit(
    search: Search,
    data: DataSet,
    *,
    epochs: int,
    batch_size: int = 64,
    images: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    run: Run | None = None,
    on_start: Callable[[float], None] | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
    on_epoch: Callable[[Record], None] | None = None,
) -> Genotype:
    """Run a search to its end and return what it found.

    The weights learn from one half of the training part, the alphas from the other; each epoch's derived sub-graph is
    measured on up to 2,000 images of the validation part.

    Args:
        images: in each half; default: all.
        seed: of the halves and the order and augmentation of the images.
        run: where metrics and checkpoints go, and where an interrupted search goes on from, bit for bit on a CPU.
        on_start: gets the estimated seconds of the search, from a few trial steps that leave no trace.
        on_step: gets epoch, step of the epoch (both from 0), and the steps of an epoch.
        on_epoch: gets the epoch's record, as in ``metrics.jsonl``.

    Raises:
        Stopped: SIGINT or SIGTERM came; the step was finished and saved.
        InputError: the loss is not a number; the last checkpoint is kept.
    """
    if epochs < 1:
        raise InputError(f"epochs={epochs}: use 1 or more")
    search.to(device)
    halves = data.halves(seed, images)
    train, valid = (
        _batches(half, data, batch_size, seed + part, device, train=True) for part, half in enumerate(halves)
    )
    monitor = _batches(data.val, data, 250, seed, device, train=False)
    search.steps = epochs * len(train)
    place = _resume(search, run)
    if on_start:
        on_start(estimate_seconds(search, train, valid))
    with stop_on_signals() as stop:
        for train_batch, valid_batch in _pairs(search, train, valid, place, epochs):
            metrics = search.step(train_batch, valid_batch)
            _refuse_nan(metrics, search.done)
            place.advance(metrics)
            if on_step:
                on_step(place.epoch, place.step - 1, len(train))
            epoch_over = place.step == len(train)
            if epoch_over:
                record = _record(search, place, monitor)
                if run:
                    run.log(record)
                if on_epoch:
                    on_epoch(record)
                place.next_epoch()
            if run and (epoch_over or stop.requested or place.since_save() > CHECKPOINT_SECONDS):
                place.save(search, run)
            if stop.requested and place.epoch < epochs:
                raise Stopped(stop.requested)
    return search.derive()


def estimate_seconds(search: Search, train: Batches, valid: Batches) -> float:
    """Seconds that the steps still to come will take, from three trial steps of each kind that leave no trace."""
    before, seconds = deepcopy(search.state_dict()), 0.0
    warm = max(0, search.warmup_steps - search.done)
    for count, at_step in ((warm, 0), (search.steps - search.done - warm, search.warmup_steps)):
        if count > 0:
            search.done, times = at_step, []
            for batch, valid_batch in [(next(train.epoch(0)), next(valid.epoch(0)))] * 3:
                start = time.perf_counter()
                search.step(batch, valid_batch)
                search.done = at_step
                times.append(time.perf_counter() - start)
            seconds += count * min(times)
    search.load_state_dict(before)
    return seconds


class _Place:
    """Where a search stands: epoch, step of the epoch, the epoch's means so far."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
        self.lines, self.seconds = int(state["lines"]), float(state["seconds"])
        self.means = Means(state["means"])
        self._started = self._saved = time.monotonic()

    def elapsed(self) -> float:
        return self.seconds + time.monotonic() - self._started

    def since_save(self) -> float:
        return time.monotonic() - self._saved

    def advance(self, metrics: dict[str, float]) -> None:
        self.step += 1
        self.means.add(metrics)

    def next_epoch(self) -> None:
        self.epoch, self.step, self.means, self.lines = self.epoch + 1, 0, Means(), self.lines + 1

    def save(self, search: Search, run: Run) -> None:
        place = {"epoch": self.epoch, "step": self.step, "lines": self.lines, "means": self.means.sums}
        run.save({"search": search.state_dict(), **place, "seconds": self.elapsed()})
        self._saved = time.monotonic()


def _resume(search: Search, run: Run | None) -> _Place:
    state = run.load() if run else None
    if run:
        run.cut_metrics(state["lines"] if state else 0)
    if state is None:
        return _Place({"epoch": 0, "step": 0, "lines": 0, "seconds": 0.0, "means": {}})
    search.load_state_dict(state["search"])
    return _Place(state)


def _pairs(
    search: Search, train: Batches, valid: Batches, place: _Place, epochs: int
) -> Iterator[tuple[Batch, Batch | None]]:
    """The steps still to do: a training batch and, once the warm-up is over, the validation batch of the same index."""
    for epoch in range(place.epoch, epochs):
        valid_batches: Iterator[Batch] | None = None
        for step, batch in enumerate(train.epoch(epoch, place.step), place.step):
            if search.warming_up:
                yield batch, None
            else:
                valid_batches = valid_batches or valid.epoch(epoch, step)
                yield batch, next(valid_batches)


def _batches(
    images: Images, data: DataSet, batch_size: int, seed: int, device: str | torch.device, *, train: bool
) -> Batches:
    augment = data.augment if train else None
    images = images if train else images.take(_some(len(images), seed))
    return Batches(
        images, batch_size, mean=data.mean, std=data.std, augment=augment, seed=seed, drop_last=train, device=device
    )


def _some(count: int, seed: int) -> torch.Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:MONITORED]


def _record(search: Search, place: _Place, monitor: Batches) -> Record:
    genotype = search.derive()
    progress = (search.done - 1) / max(1, search.steps - 1)
    probabilities = {name: p.tolist() for name, p in search.alphas.probabilities().items()}
    return {
        "epoch": place.epoch + 1,
        "phase": "warmup" if search.done <= search.warmup_steps else "search",
        **{
            name: place.means.get(name)
            for name in ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "teacher_accuracy")
        },
        "derived_accuracy": search.evaluate(genotype, monitor.epoch(0)),
        "skip_share": genotype.share("skip_connect"),
        "genotype": str(genotype),
        "alphas": {n: dict(zip(search.alphas.labels[n], p, strict=True)) for n, p in probabilities.items()},
        "tau": at(search.tau, search.search_progress),
        "drop": at(search.drop, progress),
        "lr": at(search.weight_lr, progress),
        "seconds": round(place.elapsed(), 3),
    }


def _refuse_nan(metrics: dict[str, float], step: int) -> None:
    for name, value in metrics.items():
        if value != value:
            raise InputError(
                f"{name} is not a number at step {step}: lower the learning rate; the last checkpoint is kept"
            )
