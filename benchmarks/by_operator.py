"""Where the time of DARTS's steps goes, by operator: public code's way, ours, ours with the kernels.

    python benchmarks/by_operator.py --space nasbench201 --channels 16 --cells 5 --rounds 5

Milliseconds that the main thread spends in each kind of operator, under PyTorch's profiler, which itself takes time for
every operator: the last line is the step without it. The ways take their steps in turn, in one process.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile, record_function

from msgdas.fast import keep_freed_memory, use_native
from msgdas.fast import native
from msgdas.bench import speed
from msgdas.bench.rows import Row, machine, write_rows
from msgdas.bench.setups import Method, Setting, batch, search_of
from msgdas.errors import InputError

RESULTS = Path(__file__).parent / "results" / "by_operator.csv"
WAYS = {"public": "naive", "ours": "darts", "kernels": "darts"}  # the last is ours with them
BOTH_WAYS = {
    "convolution": ("conv",),
    "sum with BatchNorms": ("kernel::forward", "kernel::backward"),
    "BatchNorm": ("batch_norm",),
    "pooling": ("pool",),
    "ReLU": ("relu", "threshold", "clamp_min"),
}
KINDS = BOTH_WAYS | {  # the first of which a part is in the operator's name
    "optimizer, norms": ("_fused", "_foreach", "norm"),
    "additions, products": ("aten::add", "aten::mul", "aten::sum", "aten::dot"),
    "other operators": ("aten::",),
    "Python, autograd": ("",),
}
WHOLE, FREE = "all, profiled", "all, not profiled"
Found = dict[tuple[str, str], list[dict[str, float]]]
Kernels = Callable[[torch.dtype], Mapping[str, Callable[..., int]]]


def measure(setting: Setting, rounds: int) -> Found:
    """By way and half of a step, milliseconds of each kind in each round, after one that warms up."""
    methods = {way: Method(name, name) for way, name in WAYS.items()}
    searches = {way: search_of(method, setting) for way, method in methods.items()}
    batches = {way: (batch(setting, method), batch(setting, method)) for way, method in methods.items()}
    found: Found = {(way, half): [] for way in WAYS for half in ("weight", "alpha")}
    for turn in range(-1, rounds):
        for way in speed.in_turn(WAYS, turn):
            use_native(way == "kernels")
            search, (train, valid) = searches[way], batches[way]
            took = {
                "weight": _times(partial(search.step, train, None)),
                "alpha": _times(partial(search.alpha_step, train, valid)),
            }
            if turn >= 0:
                for half, times in took.items():
                    found[way, half].append(times)
    return found


def _milliseconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return 1e3 * (time.perf_counter() - start)


def _times(step: Callable[[], object]) -> dict[str, float]:
    """Of a step under the profiler, by kind and in all, and of one without it."""
    seen = profile(activities=[ProfilerActivity.CPU])
    with mock.patch.object(native, "_kernels", _recorded(native._kernels)), seen:
        whole = _milliseconds(step)
    took: dict[str, float] = defaultdict(float)
    for event in seen.events():  # type: ignore[no-untyped-call]
        took[_kind(event.name, _in_backward(event))] += event.self_cpu_time_total / 1e3
    took[_kind("", False)] += whole - sum(took.values())
    return took | {WHOLE: whole, FREE: _milliseconds(step)}


def _recorded(kernels: Kernels) -> Kernels:
    """The kernels, seen by the profiler."""

    def one(name: str, kernel: Callable[..., int]) -> Callable[..., int]:
        def run(*arguments: Any) -> int:
            with record_function(f"kernel::{name}"):
                return kernel(*arguments)

        return run

    return lambda dtype: {name: one(name, kernel) for name, kernel in kernels(dtype).items()}


def _kind(name: str, backward: bool) -> str:
    named = name if name.startswith(("aten::", "kernel::")) else ""  # others are what surrounds operators
    kind = next(kind for kind, parts in KINDS.items() if any(part in named for part in parts))
    return f"{kind}, {'backward' if backward else 'forward'}" if kind in BOTH_WAYS else kind


def _in_backward(event: Any) -> bool:
    """Whether autograd runs it."""
    while event is not None:
        if event.name.startswith("autograd::engine"):
            return True
        event = event.cpu_parent
    return False


def rows(found: Found) -> Iterator[Row]:
    """Of every way, half and kind."""
    for (way, half), rounds in found.items():
        for kind in dict.fromkeys(kind for took in rounds for kind in took):
            yield Row(f"{way}, {half}: {kind}", [took[kind] for took in rounds], "ms")


def to_table(found: Found, title: str) -> Table:
    """A line per kind, a column per way and half."""
    medians = {
        name: {kind: Row(kind, [took[kind] for took in rounds]).quartiles()[1] for took in rounds for kind in took}
        for name, rounds in found.items()
    }
    kinds = sorted(
        {kind for column in medians.values() for kind in column} - {WHOLE, FREE},
        key=lambda kind: -max(column.get(kind, 0.0) for column in medians.values()),
    )
    table = Table(title=title, box=None, pad_edge=False)
    table.add_column("ms")
    for way, half in medians:
        table.add_column(f"{way}\n{half}", justify="right")
    for kind in [*kinds, WHOLE, FREE]:
        table.add_row(kind, *[f"{column[kind]:.0f}" if kind in column else "–" for column in medians.values()])
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the times. Returns 2 after bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="nasbench201")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler tells when it starts and stops
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    setting = Setting(args.space, args.channels, args.cells, batch_size=args.batch, threads=args.threads)
    try:
        found = measure(setting, args.rounds)
        where = {"space": args.space, "channels": args.channels, "cells": args.cells}
        write_rows(args.out, list(rows(found)), where | {"batch": args.batch, "threads": args.threads} | machine("cpu"))
    except InputError as error:
        print(f"by_operator.py: {error}", file=sys.stderr)
        return 2
    title = f"DARTS, {args.space} C={args.channels} N={args.cells}, batch {args.batch}"
    Console(width=80, highlight=False).print(to_table(found, title))
    return 0


if __name__ == "__main__":
    sys.exit(main())
