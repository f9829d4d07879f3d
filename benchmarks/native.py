"""Search steps with compiled kernels beside the same without: ratios of times, interleaved in one process.

    python benchmarks/native.py [--rounds 10] [--threads 2]

Two searches of each method take the same steps from the same seed, one with `msgdas.use_native`. Below 1: the kernels
are the faster.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console

from msgdas.fast import keep_freed_memory, use_native
from msgdas.bench.rows import Row, machine, to_table, write_rows
from msgdas.bench.setups import Method, Setting, batch, search_of

RESULTS = Path(__file__).parent / "results" / "native_steps.csv"
SIZES = (("nasbench201", 8, 1), ("nasbench201", 16, 5), ("darts", 8, 5))  # space, channels, cells
METHODS = ("gdas", "darts")


def measure(method: str, setting: Setting, rounds: int) -> list[float]:
    """Of each round: a step's time (weights and alphas) with the kernels over that without."""
    searches = {use: search_of(Method(method, method), setting) for use in (False, True)}
    train, valid = batch(setting), batch(setting)
    found = []
    for turn in range(rounds + 1):
        seconds = {}
        for use in (turn % 2 == 0, turn % 2 == 1):
            use_native(use)
            start = time.perf_counter()
            searches[use].step(train, valid)
            seconds[use] = time.perf_counter() - start
        found.append(seconds[True] / seconds[False])
    return found[1:]  # the first warms up


def rows(rounds: int, threads: int) -> Iterator[Row]:
    """Every method at every size."""
    for space, channels, cells in SIZES:
        setting = Setting(space, channels, cells, threads=threads)
        for method in METHODS:
            yield Row(f"{method}, {space} C={channels} N={cells}", measure(method, setting, rounds))


def main() -> None:
    """Measure, print and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    found = list(rows(args.rounds, args.threads))
    write_rows(args.out, found, {"batch": 64, "clock": "wall", "threads": args.threads} | machine("cpu"))
    Console(width=80, highlight=False).print(to_table(found, "with kernels / without"))


if __name__ == "__main__":
    main()
