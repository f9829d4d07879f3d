"""What a super-net of a given size can see: its sub-graphs' losses against a table of NAS-Bench-201.

    python benchmarks/proxy.py DATA TABLE OUT.csv --channels 8 --cells 1 --image-size 16 --images 10000 --epochs 20

The weights are trained by three uniform, exclusive sub-graphs a step, as in a warm-up. Then sub-graphs are evaluated on
validation images: random ones of the whole table and of its best tenth, for Kendall's tau with the table's accuracies;
and the cell of 3 × 3 convolutions with every change of one edge, where a search must end up.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from scipy.stats import kendalltau
from torch.nn import functional as F

from msgdas import load_data, methods
from msgdas.compare.tables import Table, read_table
from msgdas.data import Batches
from msgdas.genotype import Genotype
from msgdas.ops.statistics import quiet
from msgdas.runs import write_atomic
from msgdas.samplers import Fixed
from msgdas.search.execution import Execution
from msgdas.search.search import Batch, Search
from msgdas.spaces import nasbench201
from msgdas.subgraph import select

NAMES = [f"cell/{source}-{target}" for source, target in nasbench201.EDGES]
SAMPLE = 100


def trained(options: argparse.Namespace) -> tuple[Search, list[Batch]]:
    """A super-net after its warm-up, and batches of validation images."""
    data = load_data(str(options.data), image_size=options.image_size)
    torch.manual_seed(options.seed)
    net = nasbench201.supernet(
        channels=options.channels,
        cells=options.cells,
        classes=data.num_classes,
        in_channels=data.channels,
        image_size=data.image_size,
    )
    method = replace(methods.msgdas(k=3), warmup=1.0, drop=0.0)
    search = Search(net, method, execution=Execution(memory_format=torch.channels_last), seed=options.seed)
    half, _ = data.halves(options.seed, options.images)
    batches = Batches(half, 64, mean=data.mean, std=data.std, augment=data.augment, seed=options.seed)
    search.steps = options.epochs * len(batches)
    for epoch in range(options.epochs):
        for batch in batches.epoch(epoch):
            search.step(batch, None)
    seen = Batches(data.val.take(torch.randperm(len(data.val))[:4000]), 250, mean=data.mean, std=data.std, seed=0)
    return search, list(seen.epoch(0))


@torch.no_grad()
def loss(search: Search, batches: Sequence[Batch], genotype: Genotype) -> float:
    """Mean loss of a sub-graph with the shared weights, normalised with the statistics of each batch."""
    (subgraph,) = Fixed(genotype)(search.alphas)
    with quiet(search.net), select(search.net, subgraph):
        losses = [F.cross_entropy(search.net(x), labels) for x, labels in batches]
    return torch.stack(losses).mean().item()


def neighbours() -> list[tuple[str, Genotype]]:
    """The cell of 3 × 3 convolutions and its changes of one edge."""
    base = dict.fromkeys(NAMES, "nor_conv_3x3")
    changed = [(name, label) for name in NAMES for label in nasbench201.OPERATIONS if label != "nor_conv_3x3"]
    cells = [(f"{name.removeprefix('cell/')} {label}", base | {name: label}) for name, label in changed]
    return [(what, Genotype("nasbench201", kept)) for what, kept in [("all 3x3", base), *cells]]


def sampled(table: Table, share: float, seed: int) -> list[Genotype]:
    """Random cells of the best ``share`` of the table."""
    ranked = sorted(table.accuracy, key=lambda text: -table.accuracy[text])
    texts = random.Random(seed).sample(ranked[: max(SAMPLE, round(share * len(ranked)))], SAMPLE)
    return [nasbench201.from_string(text) for text in texts]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, evaluate, write one row a sub-graph, print the rest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "table", "out"):
        parser.add_argument(name, type=Path)
    sizes = {"channels": 8, "cells": 1, "image-size": 16, "images": 10000, "epochs": 20, "seed": 0, "threads": 1}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    table, start = read_table(options.table, "nasbench201"), time.perf_counter()
    search, batches = trained(options)
    print(f"trained in {time.perf_counter() - start:.0f} s")
    groups = {"random": sampled(table, 1.0, 0), "best tenth": sampled(table, 0.1, 1)}
    kinds = [(group, cell) for group, cells in groups.items() for cell in cells] + neighbours()
    rows = [(what, loss(search, batches, cell), table.value(str(cell)), str(cell)) for what, cell in kinds]
    for group in groups:
        pairs = [(-lost, value) for what, lost, value, _ in rows if what == group]
        print(f"Kendall's tau, {group}: {kendalltau(*zip(*pairs, strict=True)).statistic:.2f}")
    for what, lost, value, _ in rows[2 * SAMPLE :]:
        print(f"{what:<20} loss {lost:.3f}  table {value:.2f}")
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["what", "loss", "table_accuracy", "genotype"])
    out.writerows((what, f"{lost:.4f}", value, cell) for what, lost, value, cell in rows)
    write_atomic(options.out, text.getvalue())


if __name__ == "__main__":
    main()
