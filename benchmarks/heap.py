"""Search steps of a process that keeps its freed memory (`msgdas.fast.heap`), next to one that leaves glibc as it is; and of
one whose tensors lie in blocks of ours besides (``msgdas/native/blocks.cpp``), next to one that keeps alone.

    python benchmarks/heap.py [--rounds 3] [--threads 1]

Three processes a round, in turns; a ratio is that of their process times for the same steps, or of the peaks that these
add to their memory. Below 1: keeping, or the blocks, are the better. The kernels are not in use.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from msgdas.bench.memory import peak
from msgdas.bench.rows import Row, machine, to_table, write_rows
from msgdas.bench.speed import in_turn
from msgdas.bench.setups import Method, Setting
from msgdas.fast.memory import keep_freed_memory
from msgdas.fast.native import use_blocks

RESULTS = Path(__file__).parent / "results" / "heap.csv"
SETTINGS = (Setting("nasbench201", 8, 1), Setting("nasbench201", 16, 5), Setting("darts", 8, 5))
METHODS = (Method("random", "random"), Method("K = 3", "msgdas", {"k": 3}), Method("DARTS", "darts"))
HEAPS = ("given back", "kept", "in blocks")


def steps(setting: Setting, method: Method, heap: str) -> tuple[float, float]:
    """The process time of the steps of one configuration, and the MiB of their peak; once, in a fresh process."""
    torch.set_num_threads(setting.threads)
    if heap != "given back":
        keep_freed_memory()
    if heap == "in blocks":
        use_blocks()
    start = time.process_time()
    mib = peak(setting, method)
    return time.process_time() - start, mib


def in_a_process(setting: Setting, method: Method, heap: str) -> tuple[float, float]:
    """`steps` in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(steps, setting, method, heap).result()


def main() -> None:
    """Measure every configuration, print and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    rows = []
    for setting in track([replace(s, threads=args.threads) for s in SETTINGS], console=Console(stderr=True)):
        for method in METHODS:
            rounds = [{h: in_a_process(setting, method, h) for h in in_turn(HEAPS, i)} for i in range(args.rounds)]
            for before, after in pairwise(HEAPS):
                name = f"{setting.space} C={setting.channels} N={setting.cells}, {method.text}, {after} / {before}"
                for i, what in enumerate(("time", "memory")):
                    rows.append(Row(f"{name}: {what}", [one[after][i] / one[before][i] for one in rounds]))
    write_rows(args.out, rows, {"batch": 64, "threads": args.threads} | machine("cpu"))
    Console(width=80, highlight=False).print(to_table(rows, "freed memory kept, and tensors in blocks"))


if __name__ == "__main__":
    main()
