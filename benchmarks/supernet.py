"""Measure what it costs in a weight step that the super-net learns too, by what its pass recomputes.

    python benchmarks/supernet.py --space nasbench201 --channels 16 --cells 5
    python benchmarks/supernet.py --space darts --channels 16 --cells 8

Each row is a median with quartiles, of the time ratios within rounds or of the memory ratios over processes. "K alone"
is the weight step of K sub-graphs without the super-net. "beyond plain" is the time beyond plain training of the K
sub-graphs' networks, in weight steps of first-order DARTS that recompute nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from rich.console import Console

from msgdas.bench import memory, speed
from msgdas.bench.rows import Row, to_table, write_rows
from msgdas.bench.setups import Contender, Setting
from msgdas.errors import InputError
from msgdas.fast.memory import keep_freed_memory
from msgdas.search.supernet_training import RECOMPUTE

ALONE, DARTS = "K alone", "darts"
PEAKS = {"choice": 1.6, "cell": 1.25}  # largest accepted ratios
TIMES = {"choice": 1.6, "cell": 2.1}
RESULTS = Path(__file__).parent / "results" / "supernet.csv"


def contenders(k: int) -> list[Contender]:
    """K sub-graphs alone, and with the super-net's pass."""
    trained = {"k": k, "supernet_weight": 1.0}
    passes = [Contender(what, "msgdas", trained | {"supernet_recompute": what}) for what in RECOMPUTE]
    return [Contender(ALONE, "msgdas", {"k": k}), *passes]


def time_rows(setting: Setting, k: int, rounds: int, clock: str) -> Iterator[Row]:
    """Weight steps, in ratios within each round."""
    found = speed.measure(setting, [*contenders(k), Contender(DARTS, "darts")], rounds=rounds, clock=clock)
    alone, darts = found[ALONE], found[DARTS]
    yield Row("darts weight step", [1000 * one.weight for one in darts], "ms")
    for what in RECOMPUTE:
        turns = list(zip(found[what], alone, darts, strict=True))
        yield Row(f"{what}: time / {ALONE}", [one.weight / base.weight for one, base, _ in turns])
        beyond = [(one.weight - one.plain) / full.weight for one, _, full in turns]
        yield Row(f"{what}: time beyond plain / darts", beyond, target=TIMES.get(what))


def memory_rows(setting: Setting, k: int, repeats: int) -> Iterator[Row]:
    """Peak memory of search steps, in ratios of processes with the same seed."""
    found = memory.measure(setting, contenders(k), repeats=repeats)
    yield Row(f"memory {ALONE}", found[ALONE], "MiB")
    for what in RECOMPUTE:
        ratios = [one / base for one, base in zip(found[what], found[ALONE], strict=True)]
        yield Row(f"{what}: memory / {ALONE}", ratios, target=PEAKS.get(what))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--space", default="nasbench201")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, default=5)
    parser.add_argument("--k", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds; 0: no times")
    parser.add_argument("--memory-repeats", type=int, default=3, help="processes per memory configuration; 0: none")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=speed.CLOCKS, default="wall")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    setting = Setting(args.space, args.channels, args.cells, args.image_size, args.batch, threads=args.threads)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    rows: list[Row] = []
    try:
        if args.memory_repeats:
            rows += memory_rows(setting, args.k, args.memory_repeats)
        if args.rounds:
            rows += time_rows(setting, args.k, args.rounds, args.clock)
        write_rows(args.out, rows, speed.where(setting, args.clock))
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    title = f"{args.space}, {args.channels} channels, {args.cells} cells, K = {args.k}, batch {args.batch}"
    Console(width=80, highlight=False).print(to_table(rows, title))
    return 0


if __name__ == "__main__":
    sys.exit(main())
