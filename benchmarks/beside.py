"""What it saves to make the next batch in a thread beside the step: ratios of times, interleaved in one process.

    python benchmarks/beside.py [--rounds 30] [--threads 1] [--native]

Steps of MSG-DAS with K = 1 in NAS-Bench-201 (C = 8, N = 1) on random images in memory, of 8 to 64 pixels, with
random crop and flip. Their two batches are made beside the step before, or by it first; "no batches", where all steps
take the first one, is what could be saved at most.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice, repeat
from pathlib import Path
from unittest.mock import patch

import torch
from rich.console import Console

from msgdas.fast import keep_freed_memory, use_native
from msgdas.bench.rows import Row, machine, to_table, write_rows
from msgdas.bench.speed import in_turn
from msgdas.bench.setups import Method, Setting, search_of
from msgdas.data import Augment, Batches, Images
from msgdas.search.search import Batch

RESULTS = Path(__file__).parent / "results" / "beside.csv"
SIDES = (8, 32, 64)
STEPS = 8  # of a round, after one that starts the threads
BATCH = 64

Epoch = Callable[[Batches], Iterator[Batch]]


def first(batches: Batches) -> Iterator[Batch]:
    """The epoch's first batch, for ever."""
    return repeat(next(batches.epoch(0)))


def with_cpus(count: int) -> Epoch:
    """An epoch on a machine that has so many, as far as `Batches` knows, of batches however small."""

    def epoch(batches: Batches) -> Iterator[Batch]:
        with patch.multiple("msgdas.data.batches", cpus=lambda: count, WORTH_A_THREAD=0):
            found = batches.epoch(0)
            return chain([next(found)], found)  # which has begun: it asks at the first batch

    return epoch


def measure(side: int, rounds: int, threads: int) -> dict[str, list[float]]:
    """Seconds of a step, a value per round after one that warms up."""
    torch.manual_seed(0)
    setting = Setting("nasbench201", 8, 1, image_size=side, batch_size=BATCH, threads=threads)
    search = search_of(Method("msgdas", "msgdas", {"k": 1}), setting)
    count = BATCH * (STEPS + 2)
    images = Images(torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8), torch.randint(10, (count,)))
    grey = torch.full((3,), 0.5)
    augment = Augment(crop=side // 8, flip=True)
    halves = [Batches(images, BATCH, mean=grey, std=grey, augment=augment, seed=seed) for seed in (0, 1)]
    ways: dict[str, Epoch] = {"first": with_cpus(0), "beside": with_cpus(10**6), "no batches": first}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-1, rounds):
        for name in in_turn(ways, turn):
            pairs = zip(*(ways[name](half) for half in halves))
            search.step(*next(pairs))
            gc.collect()
            start = time.perf_counter()
            for train, valid in islice(pairs, STEPS):
                search.step(train, valid)
            if turn >= 0:
                found[name].append((time.perf_counter() - start) / STEPS)
            del pairs  # with its threads
    return found


def rows(rounds: int, threads: int) -> Iterator[Row]:
    """Ratios at every size, and milliseconds."""
    for side in SIDES:
        seconds = measure(side, rounds, threads)
        for name in ("beside", "no batches"):
            yield Row(f"{side} pixels, {name} / first", [a / b for a, b in zip(seconds[name], seconds["first"])])
        yield Row(f"{side} pixels, first", [1e3 * took for took in seconds["first"]], "ms")


def main() -> None:
    """Measure, print and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--native", action="store_true", help="with the kernels")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    use_native(args.native)
    keep_freed_memory()
    found = list(rows(args.rounds, args.threads))
    write_rows(args.out, found, machine("cpu") | {"threads": args.threads, "native": args.native})
    Console(width=80, highlight=False).print(to_table(found, "a search step, its batches made beside it"))


if __name__ == "__main__":
    main()
