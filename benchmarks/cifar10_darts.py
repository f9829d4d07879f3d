"""Retrain a found DARTS cell beside random cells and DARTS_V2, at equal width, depth and schedule.

    python benchmarks/cifar10_darts.py RUN DATA OUT [--random 4] [--channels 8] [--cells 5] [--epochs 10] [--jobs 2]

``RUN`` is a finished ``msgdas search --space darts``. Each network is one ``msgdas train`` on one thread, ``--jobs`` at
a time. Networks that ``OUT`` already has are not trained again; interrupted ones are resumed. Writes
``OUT/results.csv``.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from msgdas import Alphas, Genotype, derive
from msgdas.jobs.resolve import find_genotype
from msgdas.spaces import darts

COLUMNS = ("name", "seed", "test_accuracy", "val_accuracy", "params", "macs", "epochs", "seconds", "genotype")


def random_genotype(seed: int) -> Genotype:
    """A random cell: derived from alphas that are noise."""
    net = darts.supernet(channels=2, cells=3)
    return derive(net, Alphas.of(net, init=1.0, generator=torch.Generator().manual_seed(seed)))


def train(label: str, genotype: Genotype, options: argparse.Namespace) -> dict[str, object]:
    """Train one cell, unless done; returns its row of the table."""
    out = options.out / label
    if not (out / "result.json").exists():
        command = [sys.executable, "-m", "msgdas", "train", f"darts:{genotype}", "--out", str(out)]
        if (out / "config.json").exists():
            command += ["--resume"]
        else:
            names = ("data", "channels", "cells", "epochs")
            command += [word for name in names for word in (f"--{name}", str(getattr(options, name)))]
            command += ["--threads", "1"]
        with open(options.out / f"{label}.log", "a", encoding="utf-8") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log)
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    seed = json.loads((out / "config.json").read_text(encoding="utf-8"))["settings"]["seed"]
    return {column: result.get(column) for column in COLUMNS} | {"name": label, "seed": seed}


def main() -> None:
    """Train all cells and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    for name, default in (("random", 4), ("channels", 8), ("cells", 5), ("epochs", 10), ("jobs", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    cells = {"DARTS_V2": find_genotype("darts:DARTS_V2"), "found": find_genotype(str(options.run))}
    cells |= {f"random-{seed}": random_genotype(seed) for seed in range(options.random)}
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(lambda label: train(label, cells[label], options), cells))
    with open(options.out / "results.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(f"{row['name']:<10} test {100 * float(str(row['test_accuracy'])):.2f} %  {row['params']:,} parameters")


if __name__ == "__main__":
    main()
