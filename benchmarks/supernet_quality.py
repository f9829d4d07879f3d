"""How well shared weights rank architectures, by what trains them.

    python benchmarks/supernet_quality.py TABLE --data cifar10 --cells 1 --seeds 0,1

Trains the weights of a nasbench201 super-net with K exclusive uniform sub-graphs, alphas untouched; then measures
500 random cells and the 100 best of the table with the shared weights on validation images. A row per kind of training
and seed: Kendall's tau between loss (or accuracy) and the table's accuracy, and CPU time. Rows that OUT has are not
measured again. Kinds:

- plain: only the sub-graphs learn, from the mean of their losses
- sum: from the sum, which is the mean at K times the learning rate, with weight decay and clipping divided by K
- faster: the mean at K times the learning rate, and nothing else
- guided: from the second third on, the super-net teaches; nobody trains it
- mutual: from the second third on, each sub-graph learns from the mean of the others
- trained: the super-net learns from the labels in each step
- taught: it learns, and teaches
- longer: plain, for twice the epochs
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from scipy.stats import kendalltau
from torch import Tensor, nn
from torch.nn import functional as F

from msgdas import Search, fit, load_data
from msgdas.compare.specs import parse_seeds
from msgdas.compare.tables import Table, read_table
from msgdas.data import DataSet
from msgdas.errors import InputError
from msgdas.fast import layout, speed_up, use_native
from msgdas.jobs.resolve import input_size
from msgdas.methods import msgdas
from msgdas.ops.statistics import quiet
from msgdas.runs import write_atomic
from msgdas.samplers import Fixed
from msgdas.samplers.softmax import full
from msgdas.search.execution import Execution
from msgdas.search.guidance import SuperNetGuidance
from msgdas.search.loop import validation_batches
from msgdas.search.method import Method
from msgdas.search.optimizers import SGD
from msgdas.search.schedules import at, cosine
from msgdas.search.search import Batch
from msgdas.search.step_metrics import StepMetrics
from msgdas.search.supernet_training import SuperNetTraining
from msgdas.spaces import nasbench201
from msgdas.supernet import select

KINDS = ("plain", "sum", "faster", "guided", "mutual", "trained", "taught", "longer")
RANDOM, BEST = 500, 100
MEASURED = 1000  # validation images
ALPHA_STEPS = 20
RESULTS = Path(__file__).parent / "results" / "supernet_quality.csv"


class Mutual(Search):
    """In weight steps each sub-graph learns from the labels and, after the warm-up, from the mean of the others."""

    def _move_weights(self, batch: Batch, metrics: StepMetrics, subgraphs: list[Any]) -> dict[str, float]:
        if self.warming_up:
            return super()._move_weights(batch, metrics, subgraphs)
        x, labels = batch
        for group in self.weight_optimizer.param_groups:
            group["lr"] = at(self.method.weight_lr, self.progress)
        with torch.no_grad(), quiet(self._tracing):
            found = [self._logits(subgraph, x) for subgraph in subgraphs]
        for k, subgraph in enumerate(subgraphs):
            teacher = torch.stack([F.softmax(one, -1) for i, one in enumerate(found) if i != k]).mean(0).log()
            self._set_modules(at(self.method.drop, self.progress))
            logits = self._logits(subgraph, x)
            loss = self.loss(logits, labels)
            metrics.add("train_loss", loss.detach())
            metrics.add_accuracy("train", logits, labels)
            loss = (loss + SuperNetGuidance(1.0)(logits, teacher, 0.0)) / len(subgraphs)
            loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._weights, self.method.clip)
        self.weight_optimizer.step()
        self.weight_optimizer.zero_grad(set_to_none=True)
        return metrics.means({})

    def _logits(self, subgraph: Any, x: Tensor) -> Tensor:
        with select(self.places, subgraph):
            return self.execution.logits(self.net, x)


def method_of(kind: str, k: int) -> Method:
    """The method that trains the weights, its alphas left alone."""
    method = replace(msgdas(k=k), learning="none", hypergradient=None, warmup=1 / 3, supernet_training=None)
    if kind in ("sum", "faster"):
        method = replace(method, weight_lr=cosine(k * 0.05, k * 1e-3))
    if kind == "sum":
        method = replace(method, clip=method.clip / k, weight_optimizer=SGD(weight_decay=5e-4 / k))
    if kind in ("guided", "taught"):
        method = replace(method, guidance=SuperNetGuidance(1.0))
    if kind in ("trained", "taught"):
        method = replace(method, supernet_training=SuperNetTraining(1.0))
    return method


def measure(kind: str, seed: int, data: DataSet, table: Table, args: argparse.Namespace) -> dict[str, Any]:
    """Train one super-net, and compare what it says of cells with what the table says."""
    torch.manual_seed(seed)
    net = nasbench201.supernet(channels=args.channels, cells=args.cells, **input_size(data))
    speed_up(net)
    search = (Mutual if kind == "mutual" else Search)(
        net, method_of(kind, args.k), execution=Execution(memory_format=layout("cpu")), seed=seed
    )
    epochs = args.epochs * (2 if kind == "longer" else 1)
    began = time.process_time()
    fit(search, data, epochs=epochs, images=args.images, seed=seed)
    seconds = time.process_time() - began
    batches = list(validation_batches(data, seed, "cpu", limit=MEASURED).epoch(0))
    row = {
        "kind": kind,
        "k": args.k,
        "cells": args.cells,
        "channels": args.channels,
        "epochs": epochs,
        "images": args.images,
    }
    row |= {
        "seed": seed,
        "cpu_seconds": round(seconds, 1),
        "alpha_step_ms": round(1000 * alpha_step(search, data, args.k), 1),
    }
    with torch.no_grad():
        row["mixture_accuracy"] = round(judge(search, full(search._uniform), batches)[1], 4)
    for name, texts in cells_of(table).items():
        row |= correlation(name, [(table.value(text), *judged(search, text, batches)) for text in texts])
    return row


def cells_of(table: Table) -> dict[str, list[str]]:
    """The cells on which every super-net is judged, the same for all."""
    by_accuracy = sorted(table.accuracy, key=lambda text: -table.accuracy[text])
    return {"random": random.Random(0).sample(sorted(table.accuracy), RANDOM), "best": by_accuracy[:BEST]}


def judged(search: Search, text: str, batches: Sequence[Batch]) -> tuple[float, float]:
    (subgraph,) = Fixed(nasbench201.from_string(text))(search.alphas)
    return judge(search, subgraph, batches)


@torch.no_grad()
def judge(search: Search, gates: Any, batches: Sequence[Batch]) -> tuple[float, float]:
    """Loss and accuracy with the shared weights; BatchNorm uses each batch's statistics."""
    loss = correct = count = 0.0
    with quiet(search._tracing), select(search.places, gates):
        for x, labels in batches:
            logits = search.execution.logits(search.net, x)
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            correct += float((logits.argmax(-1) == labels).sum())
            count += len(labels)
    return loss / count, correct / count


def correlation(name: str, found: Sequence[tuple[float, float, float]]) -> dict[str, float]:
    """Kendall's tau-b of loss and of accuracy; what the cell with the lowest loss is worth."""
    value, loss, accuracy = zip(*found, strict=True)
    return {
        f"{name}_accuracy": round(sum(accuracy) / len(accuracy), 4),
        f"{name}_tau_loss": round(-float(kendalltau(loss, value).statistic), 4),
        f"{name}_tau_accuracy": round(float(kendalltau(accuracy, value).statistic), 4),
        f"{name}_chosen": round(min(found, key=lambda one: one[1])[0], 2),
    }


def alpha_step(search: Search, data: DataSet, k: int) -> float:
    """CPU seconds of an alpha step that compares K sub-graphs (for K = 1: 2), which leaves the weights as they are."""
    other = Search(search.net, msgdas(k=max(2, k), gradient="compare"), execution=search.execution)
    train, valid = (next(pairs(half)) for half in data.halves(0, 64))
    other.alpha_step(train, valid)
    began = time.process_time()
    for _ in range(ALPHA_STEPS):
        other.alpha_step(train, valid)
    return (time.process_time() - began) / ALPHA_STEPS


def pairs(images: Any) -> Iterator[Batch]:
    yield images.pixels.float() / 255, images.labels


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--k", type=int, default=3)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--cells", type=int, default=1, help="cells per stage")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--image-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    use_native(True)
    try:
        table = read_table(args.table, "nasbench201")
        data = load_data(args.data, image_size=args.image_size)
        for seed in parse_seeds(args.seeds):
            for kind in args.kinds.split(","):
                rows = (
                    list(csv.DictReader(args.out.read_text(encoding="utf-8").splitlines())) if args.out.exists() else []
                )
                asked = {"kind": kind, "k": str(args.k), "cells": str(args.cells), "seed": str(seed)}
                if not any(asked.items() <= row.items() for row in rows):
                    rows.append(measure(kind, seed, data, table, args))
                    text = io.StringIO()
                    writer = csv.DictWriter(text, list(rows[-1]), lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(rows)
                    write_atomic(args.out, text.getvalue())
                    sys.stdout.write(f"{rows[-1]}\n")
                    sys.stdout.flush()
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
