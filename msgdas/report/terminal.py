"""Progress of a search or a training: a live bar in a terminal, plain lines otherwise."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from pathlib import Path
from textwrap import wrap
from types import TracebackType
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from msgdas.cost import Cost
from msgdas.data import DataSet
from msgdas.errors import one_line
from msgdas.genotype import Genotype
from msgdas.report.numbers import NONE, duration, percent
from msgdas.runs import told

__all__ = ["CountView", "SearchView", "TrainView", "drop"]

WIDTH = 80  # columns


def drop(stream: IO[str] | None) -> None:
    """Send what was and will be written to ``stream`` nowhere, so that nothing fails at the process's end."""
    with suppress(OSError, ValueError, AttributeError):  # closed, or no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
        os.close(nowhere)


class _GoesOn:
    """A stream for progress: when it cannot be written to (a closed pipe, a full disk) it warns and drops the rest."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self._lost = stream, False

    def write(self, text: str) -> int:
        if not self._lost:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        if not self._lost:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def _lose(self, error: OSError) -> None:
        self._lost = True
        drop(self._stream)
        warnings.warn(f"progress cannot be printed ({told(error)}): going on without", stacklevel=3)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _View:
    """A context manager with a progress bar, which is shown only in a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        console.file = _GoesOn(console.file)  # type: ignore[assignment]  # all of a file that a console uses
        self.epochs = 1
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, visible=False)

    def __enter__(self) -> Any:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def load(self, done: int, total: int) -> None:
        """Move the bar: ``done`` of ``total`` images of a part are decoded."""
        text = "loading images"
        self._bar.update(self._task, completed=done, total=total, visible=done < total, description=text)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def say_wrapped(self, text: str) -> None:
        """Print a sentence in lines of at most 80 columns, the later ones indented."""
        indent = " " * 8
        wrapped = wrap(one_line(text), WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        self.say("\n".join(wrapped))

    def estimate(self, seconds: float) -> None:
        """Print the estimated time."""
        self.say(f"estimated time: {duration(seconds)}")
        self.say("")

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Move the bar: step ``step`` of ``steps`` in epoch ``epoch`` is done, both counted from 0."""
        done, total = epoch * steps + step + 1, self.epochs * steps
        self._bar.update(self._task, completed=done, total=total, visible=True, description=f"epoch {epoch + 1}")


class CountView(_View):
    """Progress of a task with a known number of parts, which ``what`` names: ``"rounds"``."""

    def __init__(self, console: Console, what: str) -> None:
        super().__init__(console)
        self._what = what

    def count(self, done: int, total: int) -> None:
        """Move the bar: ``done`` of ``total`` parts are done."""
        self._bar.update(self._task, completed=done, total=total, visible=True, description=self._what)


class SearchView(_View):
    """Progress of a search."""

    def start(self, out: Path, outline: list[str], epochs: int) -> None:
        """Print what the search will do."""
        self.epochs = epochs
        for line in outline:
            self.say_wrapped(line)
        self.say(one_line(f"run folder: {out}"))

    def estimate(self, seconds: float) -> None:
        """Print the estimated time, and the head of the epochs' lines."""
        super().estimate(seconds)
        self.say("epoch         loss: weights  alphas   accuracy: alphas  derived   skip   seconds")

    def epoch(self, record: dict[str, Any]) -> None:
        """Print the line of an epoch, 80 columns."""
        self.say(
            f"{record['epoch']:5d} {record['phase']:<8} {_number(record['train_loss']):>12} "
            f"{_number(record['valid_loss']):>7} {percent(record['valid_accuracy']):>17} "
            f"{percent(record['derived_accuracy']):>8} {record['skip_share']:>6.0%} {record['seconds']:>9.0f}"
        )

    def end(self, genotype: Genotype, command: str) -> None:
        """Print what was found, and the command that trains it."""
        self.say(f"\nfound {genotype}\nnext: {one_line(command)}")


class TrainView(_View):
    """Progress of a training."""

    def start(self, out: Path, genotype: str, cost: Cost, data: DataSet, epochs: int) -> None:
        """Print what the training will do."""
        self.epochs = epochs
        self.say(f"training {genotype}")
        self.say(f"{cost.params:,} parameters, {cost.macs:,} multiply-adds an image, {epochs} epochs")
        self.say(f"images: {len(data.train):,} train, {len(data.val):,} validation, {len(data.test):,} test")
        for text in filter(None, (data.resizing, data.augmentation)):
            self.say_wrapped(f"        {text}")
        self.say(one_line(f"run folder: {out}"))

    def estimate(self, seconds: float) -> None:
        """Print the estimated time, and the head of the epochs' lines."""
        super().estimate(seconds)
        self.say("epoch     loss: train      val   accuracy: train      val   seconds")

    def epoch(self, record: dict[str, Any]) -> None:
        """Print the line of an epoch, 80 columns."""
        self.say(
            f"{record['epoch']:5d} {record['train_loss']:15.4f} {record['val_loss']:8.4f} "
            f"{percent(record['train_accuracy']):>17} {percent(record['val_accuracy']):>8} {record['seconds']:>9.0f}"
        )


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.4f}"
