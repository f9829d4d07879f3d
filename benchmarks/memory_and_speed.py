"""What a search step costs in time and memory, next to plain training of the very sub-graphs that it runs.

    python benchmarks/memory_and_speed.py --channels 8 --cells 1 --batch 64 --rounds 20

Time: every kind of step once a round, interleaved in one process; a row is the median, with quartiles, of the ratios
within the rounds. "Plain" is an ordinary training loop over `discretize`'s network. Memory: every configuration in a
process of its own; the peak resident set during the steps, less the resident set after imports and building.
Everything in channels_last, without DropBlock, on random images of 32 × 32.
"""

from __future__ import annotations

import argparse
import csv
import gc
import io
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional as F

from msgdas import methods
from msgdas.discretize import discretize
from msgdas.genotype import Genotype
from msgdas.runs import write_atomic
from msgdas.samplers import Fixed
from msgdas.search.search import Batch, Search, _Seen, default_weight_optimizer
from msgdas.spaces import nasbench201
from msgdas.subgraph import SubGraph

MEMORY = ("plain", "gdas", "k1-probed", "k1-picked", "k4-picked", "k2", "k3", "k4", "multi-path")
STEPS = 6  # of every memory configuration: the heap grows a little with every one
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
RESULTS = Path(__file__).parent / "results" / "memory_and_speed.csv"


@dataclass(frozen=True)
class Row:
    """One line of the result. ``target``: what ``value`` may be at most."""

    name: str
    values: Sequence[float]
    unit: str = "ratio"
    target: float | None = None

    def quartiles(self) -> tuple[float, float, float]:
        """First quartile, median, third quartile."""
        at = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
        low, median, high = torch.tensor(self.values, dtype=torch.float64).quantile(at).tolist()
        return low, median, high

    @property
    def reached(self) -> str:
        """Of the median, unrounded."""
        if self.target is None:
            return ""
        return "reached" if self.quartiles()[1] <= self.target else "not reached"


# --------------------------------------------------------------------- what is run


def build(name: str, net: nn.Module, **settings: Any) -> Search:
    """The search that a configuration's name stands for; its alphas stay where they are."""
    common: dict[str, Any] = {"alpha_lr": 0.0, "steps": 1000} | settings
    if name == "multi-path":
        return methods.darts(net, **common)
    if name == "gdas":
        return methods.gdas(net, **common)
    if name.endswith("-picked"):  # K alone differs between these, not the gradient: what target 4 is about
        common["gradient"] = "picked"
    return methods.msgdas(net, k=int(name[1]), warmup=0.0, drop=0.0, guidance=1.0, **common)


def supernet(args: argparse.Namespace) -> nn.Module:
    """The super-net, in training mode."""
    net = nasbench201.supernet(channels=args.channels, cells=args.cells)
    return net.to(memory_format=torch.channels_last).train()


def batch(size: int) -> Batch:
    """Random images and labels."""
    return torch.randn(size, 3, 32, 32).contiguous(memory_format=torch.channels_last), torch.randint(10, (size,))


def genotype(search: Search, subgraph: SubGraph) -> Genotype:
    """Of a single path."""
    return Genotype("nasbench201", {n: search.alphas.labels[n][gate.active[0]] for n, gate in subgraph.items()})


@contextmanager
def rewound(search: Search) -> Iterator[None]:
    """Afterwards the search draws the same sub-graphs again."""
    state = search.generator.get_state()
    try:
        yield
    finally:
        search.generator.set_state(state)


def weight_step(search: Search, train: Batch) -> None:
    """As a search does it during warm-up: no alpha step."""
    search.step(train, None)
    search.done = 0


def alpha_step(search: Search, valid: Batch) -> None:
    """The alpha half of `Search.step`."""
    search.net.train()
    search._alpha_step(valid, valid, _Seen())


class Plain:
    """Ordinary training of the network of one sub-graph, its weights those of the super-net."""

    def __init__(self, net: nn.Module, kept: Genotype) -> None:
        self.net = discretize(net, kept).train()
        self.optimizer = default_weight_optimizer(self.net.parameters())

    def step(self, train: Batch) -> None:
        """Forward, backward, clip, fused SGD; the loss is read, as any loop does."""
        x, labels = train
        loss = F.cross_entropy(self.net(x), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        loss.item()


# ---------------------------------------------------------------------------- time


def times(args: argparse.Namespace) -> list[Row]:
    """Ratios of step times."""
    clock = CLOCKS[args.clock]
    net = supernet(args)
    train, valid, tiny = batch(args.batch), batch(args.batch), batch(2)
    names = ("gdas", "k1-probed", "k2", "k3", "k4", "multi-path")
    searches = {name: build(name, net) for name in names}
    single = Search(net, Fixed(genotype(searches["gdas"], *peek(searches["gdas"]))), hypergradient=None)
    ratios: dict[str, list[float]] = {}

    def compare(plain: Callable[[], None], steps: dict[str, Callable[[], None]], turn: int) -> None:
        """One time each, in an order that turns from round to round."""
        timed = {"": plain} | steps
        order = list(timed)
        took = {}
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            start = clock()
            timed[name]()
            took[name] = clock() - start
        if turn >= 0:
            for name in steps:
                ratios.setdefault(name, []).append(took[name] / took[""])

    for turn in range(-1, args.rounds):  # the first one warms up
        for name, search in searches.items():
            drawn = peek(searches["gdas"] if name == "multi-path" else search)
            plains = [Plain(net, genotype(search, subgraph)) for subgraph in drawn]
            for plain in plains:  # a new network's first step pays for its memory
                plain.step(train)
            gc.collect()
            compare(_each(plains, train), _steps(name, search, train, valid), turn)
            if name == "gdas":
                single.weight_sampler = Fixed(genotype(search, drawn[0]))
                compare(_each(plains, train), {"single": lambda: weight_step(single, train)}, turn)
                at_2 = {"single-2": _repeated(lambda: weight_step(single, tiny))}
                compare(_repeated(_each(plains, tiny)), at_2, turn)
            search.draw(search.sampler)  # on to other sub-graphs

    rows = [
        Row("1 single-path weight step / plain", ratios["single"], target=1.03),
        Row("1 same at batch 2", ratios["single-2"], target=1.05),
        Row("2 alpha step, K = 1 picked / plain", ratios["gdas alpha"], target=0.70),
    ]
    for k in (1, 2, 3, 4):
        name = "k1-probed" if k == 1 else f"k{k}"
        of = f"K = {k} / {k} plain"
        rows += [
            Row(f"3 weight step, {of}", ratios[f"{name} weight"], target=1.03),
            Row(f"3 same + teacher, {of}", ratios[f"{name} taught"], target=(k + 1.1) / k),
            Row(f"3b alpha compare, {of}", ratios[f"{name} alpha"], target=0.35)
            if k > 1
            else Row(f"7 alpha probed, {of}", ratios[f"{name} alpha"], target=0.70 + 0.25 * 4),
        ]
    return [
        *rows,
        Row("- GDAS weight step / plain", ratios["gdas weight"]),
        Row("- multi-path weight step / plain", ratios["multi-path weight"]),
        Row("- multi-path alpha step / plain", ratios["multi-path alpha"]),
    ]


def peek(search: Search) -> list[SubGraph]:
    """The sub-graphs that the next step will draw."""
    with rewound(search), torch.no_grad():
        return search.draw(search.sampler)


def _each(plains: Sequence[Plain], train: Batch) -> Callable[[], None]:
    def run() -> None:
        for plain in plains:
            plain.step(train)

    return run


def _repeated(step: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(5):  # too short to time just one
            step()

    return run


def _steps(name: str, search: Search, train: Batch, valid: Batch) -> dict[str, Callable[[], None]]:
    guidance = search.guidance

    def weight(teacher: bool) -> None:
        search.guidance = guidance if teacher else None
        try:
            with rewound(search):
                weight_step(search, train)
        finally:
            search.guidance = guidance

    def alpha() -> None:
        with rewound(search):
            alpha_step(search, valid)

    steps = {f"{name} weight": lambda: weight(False), f"{name} alpha": alpha}
    return steps | ({f"{name} taught": lambda: weight(True)} if guidance is not None else {})


# -------------------------------------------------------------------------- memory


def memory_of(args: argparse.Namespace, name: str) -> float:
    """Peak MiB that the steps of one configuration add; call it once, in a fresh process."""
    net = supernet(args)
    search = build("gdas" if name == "plain" else name, net, seed=args.seed)
    train, valid = batch(args.batch), batch(args.batch)
    before = _resident("VmRSS")
    if name == "plain":
        for _ in range(STEPS):
            (subgraph,) = search.draw(search.sampler)
            Plain(net, genotype(search, subgraph)).step(train)
    else:
        for _ in range(STEPS):
            search.step(train, valid)
            search.done = 0
    return _resident("VmHWM") - before


def _resident(field: str) -> float:
    """MiB. Linux hands ru_maxrss of the parent on to a started process, hence /proc where there is one."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith(field + ":"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def memories(args: argparse.Namespace) -> list[Row]:
    """Peak memory of each configuration, and ratios."""
    mib: dict[str, list[float]] = {name: [] for name in args.memory}
    for repeat in range(args.memory_repeats):
        for name in mib:
            command = [sys.executable, __file__, "--memory-of", name, "--seed", str(repeat)]
            for setting in ("channels", "cells", "batch", "threads"):
                command += [f"--{setting}", str(getattr(args, setting))]
            environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            mib[name].append(float(done.stdout))
    rows = [Row(f"- memory {name}", values, "MiB") for name, values in mib.items()]
    for name in mib:
        for base, targets in (("k1-picked", {"k4-picked": 1.03}), ("k1-probed", {}), ("multi-path", {"k4": 0.25})):
            if base in mib and name != base:
                ratios = [a / b for a, b in zip(mib[name], mib[base], strict=True)]
                target = targets.get(name)
                rows.append(Row(f"{'4' if target else '-'} memory {name} / {base}", ratios, target=target))
    return rows


# -------------------------------------------------------------------------- report


def cpu_model() -> str:
    """As the system names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def write_csv(path: Path, rows: Sequence[Row], args: argparse.Namespace) -> None:
    """One line per row, each with the settings and the machine it was measured on."""
    where = {
        "msgdas": version("msgdas"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": cpu_model(),
        "threads": args.threads,
        "clock": args.clock,
        "batch": args.batch,
        "channels": args.channels,
        "cells": args.cells,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    fields = ["name", "value", "q1", "q3", "n", "unit", "target", "reached", *where]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        low, median, high = (f"{v:.6f}" for v in row.quartiles())
        target = "" if row.target is None else f"{row.target:.4f}"
        line = {"name": row.name, "value": median, "q1": low, "q3": high, "n": len(row.values), "unit": row.unit}
        writer.writerow(line | {"target": target, "reached": row.reached} | where)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text.getvalue().encode())


def show(rows: Sequence[Row], args: argparse.Namespace) -> None:
    """The table, 80 columns."""
    title = f"nasbench201 C={args.channels} N={args.cells}, batch {args.batch}, threads {args.threads}, {args.clock}"
    table = Table(title=title, box=None, pad_edge=False)
    table.add_column("# what")
    for column in ("median", "quartiles", "at most"):
        table.add_column(column, justify="right")
    table.add_column("")
    for row in rows:
        low, median, high = (f"{v:.3f}" if row.unit == "ratio" else f"{v:.0f}" for v in row.quartiles())
        unit = "" if row.unit == "ratio" else f" {row.unit}"
        target = "" if row.target is None else f"{row.target:.3f}"
        style = {"reached": "green", "not reached": "red"}.get(row.reached)
        table.add_row(row.name, median + unit, f"{low}–{high}", target, row.reached, style=style)
    Console(width=80).print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--cells", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20, help="of the timing")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: of the process, on a busy machine")
    parser.add_argument("--memory", nargs="*", choices=MEMORY, default=list(MEMORY), help="configurations")
    parser.add_argument("--memory-repeats", type=int, default=3, help="processes per configuration")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--memory-of", choices=MEMORY, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    if args.memory_of:
        sys.stdout.write(f"{memory_of(args, args.memory_of)}\n")
        return
    rows = times(args) + memories(args)
    write_csv(args.out, rows, args)
    show(rows, args)


if __name__ == "__main__":
    main()
