"""Resumable loop: checkpoints, signals, resume. A search and a training run in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from msgdas.errors import InputError, cut
from msgdas.runs.checkpoint import DAMAGE
from msgdas.runs.finite import NotANumber, first_bad, not_a_number, tensors
from msgdas.runs.folder import Run
from msgdas.runs.signals import Stop, Stopped

__all__ = ["Means", "Place", "Stateful", "Stopped", "go_on", "random_states", "resume", "set_random_states"]

Record = dict[str, Any]


class Stateful(Protocol):
    """Anything whose state a checkpoint can store and restore."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Means:
    """Running means by name. ``sums`` (sum and count of each) goes into the checkpoint."""

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


class Place:
    """Position in a run.

    Attributes:
        length: steps per epoch.
        epoch, step: of the next step, both from 0; ``epoch`` is also the number of records logged.
        means: means of the metrics of the current epoch.
        saved: time of the last checkpoint, by `time.monotonic`.
    """

    def __init__(self, length: int, state: Mapping[str, Any]) -> None:
        self.length = length
        self.epoch, self.step = int(state.get("epoch", 0)), int(state.get("step", 0))
        self.means = Means(state.get("means"))
        self._seconds = float(state.get("seconds", 0.0))
        self._started = self.saved = time.monotonic()

    @property
    def done(self) -> int:
        """Steps completed in the whole run."""
        return self.epoch * self.length + self.step

    def elapsed(self) -> float:
        """Seconds spent in the whole run, without interruptions."""
        return self._seconds + time.monotonic() - self._started

    def advance(self, metrics: dict[str, float]) -> None:
        self.step += 1
        self.means.add(metrics)

    def next_epoch(self) -> None:
        self.epoch, self.step, self.means = self.epoch + 1, 0, Means()

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "step": self.step, "means": self.means.sums, "seconds": self.elapsed()}


def resume(job: Stateful, run: Run | None, length: int) -> Place:
    """Restore ``job`` and the metrics from the run's last checkpoint, if there is one.

    Args:
        length: steps per epoch.

    Raises:
        InputError: no checkpoint is readable or fits, or metrics are missing. ``job`` may be changed then.
    """
    state = run.load() if run else None
    if run is None or state is None:
        place = Place(length, {})
    else:
        if "place" not in state:
            raise InputError(f"the checkpoint in '{run.path}' is of an earlier version: start again with another --out")
        try:
            place = Place(length, state["place"])
            job.load_state_dict(state["job"])
        except DAMAGE as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(
                f"the checkpoint in '{run.path}' does not fit what its config.json says ({cut(reason)}): "
                "start again with another --out"
            ) from error
    if run:
        run.cut_metrics(place.epoch)
    return place


def go_on(
    job: Stateful,
    place: Place,
    steps: Iterator[dict[str, float]],
    *,
    stop: Stop,
    epochs: int,
    end_epoch: Callable[[], Record],
    run: Run | None,
    on_step: Callable[[int, int, int], None] | None,
    on_epoch: Callable[[Record], None] | None,
) -> None:
    """Do the remaining steps. Log a record per epoch; save a checkpoint at its end and when it is due.

    Args:
        job: the state that the steps change.
        steps: each ``next`` does the step at ``place`` and returns its metrics.
        stop: from the caller's `stop_on_signals`.
        end_epoch: returns the record of the epoch that ``place`` is in.
        run: where records and checkpoints go; `Run.checkpoint_seconds` says how often within an epoch.
        on_step: gets epoch, step (both from 0) and the steps per epoch.
        on_epoch: gets the record of each epoch.

    Raises:
        Stopped: SIGINT or SIGTERM arrived; the step was finished and saved.
        InputError: a value is NaN or infinite; it is not saved, and the last checkpoint is kept.
    """
    with _telling_what_is_kept(run):
        for metrics in steps:
            place.advance(metrics)
            if on_step:
                on_step(place.epoch, place.step - 1, place.length)
            epoch_over = place.step == place.length
            if epoch_over:
                record = end_epoch()
                if run:
                    run.log(record)
                if on_epoch:
                    on_epoch(record)
                place.next_epoch()
            if run and (epoch_over or stop.requested or time.monotonic() - place.saved > run.checkpoint_seconds):
                _save(job, place, run)
            if stop.requested and place.epoch < epochs:
                raise Stopped(stop.requested)


@contextmanager
def _telling_what_is_kept(run: Run | None) -> Iterator[None]:
    """What is not a number is told with whether there is a checkpoint."""
    try:
        yield
    except NotANumber as error:
        if run is None:
            raise
        kept = "the last checkpoint is kept" if run.has_checkpoint else "there is no checkpoint yet"
        raise InputError(f"{error}; {kept}") from error


def random_states() -> dict[str, Any]:
    """The states of torch's global generators, under ``rng`` and ``cuda_rng``."""
    return {
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(state: Mapping[str, Any]) -> None:
    """Restore the states that `random_states` returned."""
    torch.set_rng_state(state["rng"])
    if state["cuda_rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda_rng"])


def _save(job: Stateful, place: Place, run: Run) -> None:
    state = job.state_dict()
    if bad := first_bad({"state": tensors(state)}):
        raise not_a_number(place.done, bad)
    run.save({"job": state, "place": place.state_dict()})
    place.saved = time.monotonic()
