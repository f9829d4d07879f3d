"""Time of a search step, next to plain training of the sub-graphs that it runs.

In every round each contender takes its steps once, interleaved with steps of the plain networks of that round's
sub-graphs, all in one process. Results are ratios within rounds.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from random import Random
from statistics import fmean, median
from typing import NamedTuple

import torch
from rich.table import Table
from torch import nn

from msgdas.bench.rows import Row, machine
from msgdas.bench.setups import Contender, Plain, Setting, batch, plain_networks, rewound, search_of, supernet
from msgdas.errors import InputError
from msgdas.genotype import Genotype

__all__ = ["CLOCKS", "Round", "in_turn", "measure", "to_rows", "to_table", "where"]

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
STEPS = ("weight", "alpha", "step")


class Round(NamedTuple):
    """Seconds of one round of a method with K sub-graphs.

    Attributes:
        plain: one training step of each of the K plain networks of the weight step.
        weight: the weight step.
        alpha: the alpha step; None for methods without one (SNAS, random search).
        plain_alpha: like ``plain``, for the sub-graphs of the alpha step.
        k: K.
        pytorch: like ``plain``, with PyTorch's own operations; None: not measured.
    """

    plain: float
    weight: float
    alpha: float | None
    plain_alpha: float
    k: int
    pytorch: float | None = None

    @property
    def step(self) -> float:
        """Seconds of a whole search step."""
        return self.weight + (self.alpha or 0.0)

    def ratios(self) -> dict[str, float]:
        """Ratios of the weight step, the alpha step and the whole search step to plain steps."""
        found = {"weight": self.weight / self.plain}
        if self.alpha is not None:
            found["alpha"] = self.alpha / self.plain_alpha
        return found | {"step": self.step / fmean([self.plain, self.plain_alpha])}

    def ratios_to_pytorch(self) -> dict[str, float]:
        """Like `ratios`, to plain steps with PyTorch's own operations."""
        assert self.pytorch is not None
        return {what: ratio * self.plain / self.pytorch for what, ratio in self.ratios().items()}


def measure(
    setting: Setting,
    contenders: Sequence[Contender],
    *,
    rounds: int,
    clock: str = "wall",
    repeat: int = 1,
    pytorch: bool = False,
    on_round: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, list[Round]]:
    """Measure rounds of every contender, by its text, after one round to warm up.

    Args:
        clock: ``"wall"``, or ``"cpu"``: CPU time of the process, for a busy machine.
        repeat: number of steps per measurement, for steps too short to time one.
        pytorch: also measure plain networks with PyTorch's own operations.
        on_round: called with the number of finished rounds and the number of all.

    Raises:
        InputError: the space refuses a method or a setting, or the clock cannot measure the device.
    """
    if clock == "cpu" and torch.device(setting.device).type != "cpu":
        raise InputError(f"--clock cpu does not see the work of device {setting.device!r}: use wall")
    torch.manual_seed(setting.seed)
    base = supernet(setting)
    subjects = [_Subject(contender, setting, base, clock, repeat, pytorch) for contender in contenders]
    found: dict[str, list[Round]] = {contender.text: [] for contender in contenders}
    for turn in range(-1, rounds):
        on_round(turn + 1, rounds)
        for subject in subjects:
            seconds = subject.round(turn)
            if turn >= 0:
                found[subject.text].append(seconds)
    return found


def in_turn(names: Iterable[str], turn: int) -> list[str]:
    """``names`` in the order of a round: a new one every two rounds, the second time backwards.

    A network that runs right after another of the same path finds it in the processor's caches, so everyone has to go
    first equally often.
    """
    order = list(names)
    Random(turn // 2).shuffle(order)
    return order[::-1] if turn % 2 else order


class _Subject:
    """A contender's search, and the timing of its steps."""

    def __init__(
        self, contender: Contender, setting: Setting, base: nn.Module, clock: str, repeat: int, pytorch: bool
    ) -> None:
        self.text = contender.text
        self._base, self._clock, self._repeat, self._pytorch = base, CLOCKS[clock], repeat, pytorch
        self._search = search_of(contender, setting, base)
        self._train, self._valid = batch(setting, contender), batch(setting, contender)
        self._of_plain = batch(setting)
        self._device = torch.device(setting.device)

    def round(self, turn: int) -> Round:
        """Take every step once, in the order of `in_turn`."""
        search = self._search
        method = search.method
        weight_sampler = method.sampler if method.learning == "joint" else method.weight_sampler
        in_weight_step = plain_networks(search, weight_sampler, self._base)
        in_alpha_step = plain_networks(search, method.sampler, self._base)
        steps = {"plain": self._plain(*in_weight_step), "weight": self._weight}
        if self._pytorch:
            steps["pytorch"] = self._plain(*in_weight_step, pytorch=True)
        if method.learning == "alternate":
            steps["alpha"] = self._alpha
            if in_alpha_step[1] != in_weight_step[1]:
                steps["plain_alpha"] = self._plain(*in_alpha_step)
        gc.collect()
        took = {name: self._timed(steps[name]) for name in in_turn(steps, turn)}
        search.draw()  # so that the next round has other sub-graphs
        torch.rand(1, generator=search.generator)  # for samplers that need no random numbers
        return Round(
            took["plain"],
            took["weight"],
            took.get("alpha"),
            took.get("plain_alpha", took["plain"]),
            len(in_weight_step[1]),
            took.get("pytorch"),
        )

    def _plain(self, net: nn.Module, kept: Sequence[Genotype], *, pytorch: bool = False) -> Callable[[], None]:
        plains = [Plain(net, genotype, pytorch=pytorch) for genotype in kept]

        def run() -> None:
            for plain in plains:
                plain.step(self._of_plain)

        run()  # the first step of a new network allocates its memory
        return run

    def _weight(self) -> None:
        with rewound(self._search):
            self._search.step(self._train, None)
        self._search.done = 0

    def _alpha(self) -> None:
        """The alpha half of `Search.step`."""
        with rewound(self._search):
            self._search.alpha_step(self._train, self._valid)

    def _timed(self, step: Callable[[], None]) -> float:
        self._wait()
        start = self._clock()
        for _ in range(self._repeat):
            step()
        self._wait()
        return (self._clock() - start) / self._repeat

    def _wait(self) -> None:
        """Wait until the device has finished its work."""
        if self._device.type in ("cuda", "mps"):
            getattr(torch, self._device.type).synchronize()


# -------------------------------------------------------------------------- report


def to_rows(times: Mapping[str, Sequence[Round]], memory: Mapping[str, Sequence[float]], setting: Setting) -> list[Row]:
    """Rows of all ratios, then of milliseconds, images per second and MiB."""
    rows = []
    for text, rounds in times.items():
        for what in STEPS:
            values = [ratios[what] for ratios in (one.ratios() for one in rounds) if what in ratios]
            rows += [Row(f"{text} {what} / plain", values)] if values else []
        if text in memory and "plain" in memory:
            pairs = zip(memory[text], memory["plain"], strict=True)
            rows.append(Row(f"{text} memory / plain", [a / b for a, b in pairs]))
    for text, rounds in times.items():
        alphas = [1e3 * one.alpha for one in rounds if one.alpha is not None]
        rows.append(Row(f"{text} weight", [1e3 * one.weight for one in rounds], "ms"))
        rows += [Row(f"{text} alpha", alphas, "ms")] if alphas else []
        rows.append(Row(f"{text} images", [setting.batch_size / one.step for one in rounds], "images/s"))
    plain = _plain_seconds(times)
    rows.append(Row("plain weight", [1e3 * s for s in plain], "ms"))
    rows.append(Row("plain images", [setting.batch_size / s for s in plain], "images/s"))
    return rows + [Row(f"{text} memory", values, "MiB") for text, values in memory.items()]


def _plain_seconds(times: Mapping[str, Sequence[Round]]) -> list[float]:
    """Seconds of one plain step, over all contenders and rounds."""
    return [one.plain / one.k for rounds in times.values() for one in rounds]


def to_table(rows: Sequence[Row], texts: Sequence[str], setting: Setting) -> Table:
    """Table of 80 columns, a line per contender: medians, and the quartiles of the whole step."""
    by_name = {row.name: row for row in rows}
    size = f"channels {setting.channels}, cells {setting.cells}, {setting.image_size} pixels"
    table = Table(title=f"{setting.space}, {size}, batch {setting.batch_size}, {setting.device}", box=None)
    table.pad_edge = False
    table.add_column("", overflow="fold")
    for column in ("weight", "alpha", "step", "quartiles", "images/s", "MiB", "memory"):
        table.add_column(column, justify="right", no_wrap=True)
    for text in ["plain", *texts]:
        own = text == "plain"
        cells = ["1.00", "–", "1.00"] if own else [_text(by_name, f"{text} {w} / plain") for w in STEPS]
        spread = "" if own else "{:.2f}–{:.2f}".format(*by_name[f"{text} step / plain"].quartiles()[::2])
        images, mib = _text(by_name, f"{text} images", ".0f"), _text(by_name, f"{text} memory", ".0f")
        ratio = ("–" if mib == "–" else "1.00") if own else _text(by_name, f"{text} memory / plain")
        table.add_row(text, *cells, spread, images, mib, ratio)
    return table


def _text(rows: Mapping[str, Row], name: str, form: str = ".2f") -> str:
    return f"{median(rows[name].values):{form}}" if name in rows else "–"


def where(setting: Setting, clock: str) -> dict[str, object]:
    """Settings and machine: columns of a CSV."""
    known = asdict(setting) | machine(setting.device) | {"clock": clock, "batch": setting.batch_size}
    names = ("msgdas", "torch", "python", "cpu", "threads", "clock", "batch", "channels", "cells", "date", "space")
    return {name: known[name] for name in (*names, "image_size", "device", "seed", "native")}
