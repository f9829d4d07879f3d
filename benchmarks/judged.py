"""Summarise the searches on the judging seeds from the committed results: means, lowest, paired differences, a plot.

    python benchmarks/judged.py TABLE --prefix benchmarks/results/methods_nasbench201_slower --seeds 3-6

Reads the series that begin with "judge" from PREFIX.csv and PREFIX_epochs.csv, looks every cell up in TABLE again and
writes PREFIX.svg. Searches nothing.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from msgdas.compare.plot import draw
from msgdas.compare.specs import parse_seeds
from msgdas.compare.stats import paired, spread
from msgdas.compare.tables import read_table
from msgdas.errors import InputError
from msgdas.runs import write_atomic

PREFIX = Path(__file__).parent / "results" / "methods_nasbench201_slower"
CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def lines(file: Path, seeds: Sequence[int]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Method, seed and line of each search of the judging series."""
    with file.open(encoding="utf-8") as text:
        for line in csv.DictReader(text):
            if line["series"].startswith("judge") and int(line["seed"]) in seeds:
                yield line["method"].partition(":")[0], int(line["seed"]), line


def main(arguments: Sequence[str] | None = None) -> int:
    """Look up, print and draw. Returns 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--prefix", type=Path, default=PREFIX)
    parser.add_argument("--seeds", default="3-6")
    args = parser.parse_args(arguments)
    found: dict[str, dict[int, float]] = defaultdict(dict)
    records: dict[str, dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    try:
        table, seeds = read_table(args.table, "nasbench201"), parse_seeds(args.seeds)
        for method, seed, line in lines(args.prefix.with_suffix(".csv"), seeds):
            found[method][seed] = table.value(line["genotype"])
        for method, seed, line in lines(args.prefix.with_name(f"{args.prefix.name}_epochs.csv"), seeds):
            records[method][seed].append(line | {"seconds": float(line["seconds"])})
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    first = next(iter(found))
    for method, by_seed in found.items():
        each, ahead = spread(list(by_seed.values())), paired(found[first], by_seed)
        assert each is not None
        assert ahead is not None
        sys.stdout.write(f"{method:8} {each.mean:.2f} ± {each.std:.2f}, lowest {each.low:.2f}")
        if method != first:
            sys.stdout.write(f"; {first} ahead by {ahead.mean:.2f} ± {ahead.std:.2f}, in {ahead.ahead} of {ahead.n}")
        sys.stdout.write(f"; {', '.join(f'{value:.2f}' for value in by_seed.values())}\n")
    sys.stdout.write(f"3 × 3 convolutions everywhere {table.value(CELL):.4f}\n")
    searches: Any = {m: [SimpleNamespace(records=r) for r in by_seed.values()] for m, by_seed in records.items()}
    svg, _ = draw(searches, table, ("3 × 3 everywhere", table.value(CELL)))
    write_atomic(args.prefix.with_suffix(".svg"), svg)
    return 0


if __name__ == "__main__":
    sys.exit(main())
