"""Training steps of a network under ``torch.compile`` beside the same ones uncompiled, and what compiling takes.

    python benchmarks/compiled.py [--rounds 15] [--threads 2]

The networks are of one random sub-graph each, batch 64, 32 × 32 pixels; a row is the median, with quartiles, of the
ratios of steps in turns, in one process that keeps its freed memory, as the command line does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console

from msgdas.bench.rows import Row, machine, to_table, write_rows
from msgdas.bench.setups import Method, Plain, Setting, batch, plain_networks, search_of, supernet
from msgdas.fast.heap import keep_freed_memory
from msgdas.retrain.compiled import compiled

RESULTS = Path(__file__).parent / "results" / "compiled.csv"
SIZES = (("nasbench201", 8, 1), ("nasbench201", 16, 5), ("darts", 8, 5))


def measure(setting: Setting, rounds: int) -> Iterator[Row]:
    """Rows of one size."""
    torch.manual_seed(setting.seed)
    net, data = supernet(setting), batch(setting)
    search = search_of(Method("random", "random"), setting, net)
    _, (kept,) = plain_networks(search, search.method.sampler, net)
    plain, faster = Plain(net, kept), Plain(net, kept)
    faster.forward = compiled(faster.net)
    start = time.perf_counter()
    faster.step(data)
    took = time.perf_counter() - start
    ratios = []
    for turn in range(-2, rounds):  # the first ones warm up
        seconds = [_seconds(one, data) for one in (plain, faster)]
        if turn >= 0:
            ratios.append(seconds[1] / seconds[0])
    size = f"{setting.space} C = {setting.channels}, {setting.cells} cells"
    yield Row(f"compiled / not, {size}", ratios)
    yield Row(f"first step, {size}", [took], "s")


def _seconds(plain: Plain, data: tuple[torch.Tensor, torch.Tensor]) -> float:
    start = time.perf_counter()
    plain.step(data)
    return time.perf_counter() - start


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    settings = [Setting(space, channels, cells, threads=args.threads) for space, channels, cells in SIZES]
    rows = [row for setting in settings for row in measure(setting, args.rounds)]
    write_rows(args.out, rows, {"threads": args.threads, "batch": 64} | machine("cpu"))
    Console(width=80, highlight=False).print(to_table(rows, f"compiled training, threads {args.threads}"))


if __name__ == "__main__":
    main()
