"""The training loop of a search: epochs, metrics, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from typing import Any

import torch

from msgdas.data import Batches, DataSet
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.runs import Run, stop_on_signals
from msgdas.runs.finite import NotANumber
from msgdas.runs.resumable import Place, Stopped, go_on, resume
from msgdas.search.schedules import at
from msgdas.search.search import Batch, Search

__all__ = ["Stopped", "estimate_seconds", "fit", "validation_batches"]

Record = dict[str, Any]
PASSES = tuple(f"{part}_{what}" for part in ("train", "valid", "supernet") for what in ("loss", "accuracy"))
MONITORED = 2000  # validation images on which each epoch's derived sub-graph is evaluated


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
    """Run a search to its end and return the derived architecture.

    The weights learn from one half of the training images, the alphas from the other. After each epoch the derived
    sub-graph is evaluated on up to 2,000 validation images.

    Examples:
        >>> search = msgdas.Search(net, msgdas.methods.msgdas(k=3))
        >>> genotype = msgdas.fit(search, msgdas.load_data("digits"), epochs=20)

    Args:
        search: the search; ``fit`` sets its ``steps``.
        data: the data set.
        epochs: number of epochs, warm-up included.
        batch_size: images per batch.
        images: number of images in each half; default: all.
        seed: seed of the halves, and of the order and augmentation of the images.
        device: device to search on.
        run: run folder for metrics and checkpoints. An interrupted search continues from it, bit for bit on a CPU.
        on_start: called with the estimated seconds of the search, after a few trial steps that are undone.
        on_step: called with the epoch, the step of the epoch (both from 0) and the number of steps per epoch.
        on_epoch: called with the record of the epoch, as in ``metrics.jsonl``.

    Raises:
        Stopped: on SIGINT or SIGTERM, after the current step was finished and saved.
        InputError: an argument is wrong, or a value became NaN or infinite; the last checkpoint, if any, is kept.
    """
    if epochs < 1:
        raise InputError(f"epochs={epochs}: use 1 or more")
    search.to(device)
    halves = data.halves(seed, images)
    common: dict[str, Any] = {"mean": data.mean, "std": data.std, "augment": data.augment, "device": device}
    train, valid = (Batches(half, batch_size, seed=seed + part, **common) for part, half in enumerate(halves))
    monitor = validation_batches(data, seed, device, limit=MONITORED)
    search.steps = epochs * len(train)
    place = resume(search, run, len(train))
    with stop_on_signals() as stop:
        if on_start:
            on_start(estimate_seconds(search, train, valid))
        go_on(
            search,
            place,
            (search.step(*batches) for batches in _pairs(search, train, valid, place, epochs)),
            stop=stop,
            epochs=epochs,
            end_epoch=lambda: _record(search, place, monitor, valid),
            run=run,
            on_step=on_step,
            on_epoch=on_epoch,
        )
    return _found(search)


def estimate_seconds(search: Search, train: Batches, valid: Batches) -> float:
    """Estimate the seconds that the remaining steps take, from three trial steps of each kind that are undone.

    A trial step that diverges says nothing: its turn comes after others.
    """
    before, seconds = deepcopy(search.state_dict()), 0.0
    warm = max(0, search.warmup_steps - search.done)
    for count, at_step in ((warm, 0), (search.steps - search.done - warm, search.warmup_steps)):
        if count > 0:
            search.done, times = at_step, []
            for batch, valid_batch in [(next(train.epoch(0)), next(valid.epoch(0)))] * 3:
                start = time.perf_counter()
                with suppress(NotANumber):
                    search.step(batch, valid_batch)
                search.done = at_step
                times.append(time.perf_counter() - start)
            seconds += count * min(times)
    search.load_state_dict(before)
    search.zero_grad()
    return seconds


def _pairs(
    search: Search, train: Batches, valid: Batches, place: Place, epochs: int
) -> Iterator[tuple[Batch, Batch | None]]:
    """Batches of the remaining steps: a training batch and, after the warm-up, the validation batch of its index."""
    for epoch in range(place.epoch, epochs):
        if _stopped_at(search) is not None:
            return
        valid_batches: Iterator[Batch] | None = None
        for step, batch in enumerate(train.epoch(epoch, place.step), place.step):
            if search.warming_up or search.method.learning != "alternate":
                yield batch, None
            else:
                valid_batches = valid_batches or valid.epoch(epoch, step)
                yield batch, next(valid_batches)


def validation_batches(
    data: DataSet, seed: int, device: str | torch.device = "cpu", *, limit: int | None = None
) -> Batches:
    """Batches of validation images for `Search.evaluate`.

    The images are shuffled, because a sub-graph is normalised with the statistics of each batch and fails on a batch
    that holds a single class.

    Args:
        limit: number of images, taken at random; default: all.
    """
    some = torch.randperm(len(data.val), generator=torch.Generator().manual_seed(seed))[:limit]
    return Batches(data.val.take(some), 250, mean=data.mean, std=data.std, seed=seed, drop_last=False, device=device)


def _stopped_at(search: Search) -> int | None:
    """The index of the watched epoch to return to, if the method's early-stopping rule ends the search."""
    rule = search.method.early_stop
    return rule.stops([value for value, _ in search.watched]) if rule else None


def _found(search: Search) -> Genotype:
    epoch = _stopped_at(search)
    return search.derive() if epoch is None else Genotype.from_dict(search.watched[epoch][1])


def _record(search: Search, place: Place, monitor: Batches, valid: Batches) -> Record:
    genotype, watched = search.derive(), {}
    rule = search.method.early_stop
    if rule and search.done > search.warmup_steps:
        x, labels = next(valid.epoch(place.epoch))
        watched["early_stop"] = rule.measure(search.net, search.alphas, lambda: search.loss(search.net(x), labels))
        search.watched.append((watched["early_stop"], genotype.to_dict()))
    progress = (search.done - 1) / max(1, search.steps - 1)
    probabilities = {name: p.tolist() for name, p in search.alphas.probabilities().items()}
    return {
        "epoch": place.epoch + 1,
        "phase": "warmup" if search.done <= search.warmup_steps else "search",
        **{name: place.means.get(name) for name in (*PASSES, "teacher_accuracy")},
        **watched,
        "derived_accuracy": search.evaluate(genotype, monitor.epoch(0)),
        "skip_share": genotype.share("skip_connect"),
        "genotype": str(genotype),
        "alphas": {n: dict(zip(search.alphas.labels[n], p, strict=True)) for n, p in probabilities.items()},
        "tau": at(search.method.tau, search.search_progress),
        "drop": at(search.method.drop, progress),
        "lr": at(search.method.weight_lr, progress),
        "seconds": round(place.elapsed(), 3),
    }
