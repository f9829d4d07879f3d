"""The result of one finished search, read from its run folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgdas.compare.queue import Task
from msgdas.errors import InputError
from msgdas.genotype import Genotype
from msgdas.runs import Run

__all__ = ["SearchResult", "read_result"]

SKIP = "skip_connect"


@dataclass(frozen=True)
class SearchResult:
    """One finished search.

    Attributes:
        method: the method as given, ``METHOD:option=value:…``.
        records: one per epoch, from ``metrics.jsonl``.
        text: the genotype as text.
        derived_accuracy: validation accuracy of the genotype with the super-net's weights, a fraction.
        seconds: spent searching, without interruptions.
        peak_memory_mib: of its process; ``None`` if not measured.
        skip_share: fraction of the choices that keep `SKIP`.
        params, macs: parameters and multiply-adds of the derived network.
        versions: of packages, the platform and the number of threads.
    """

    method: str
    seed: int
    records: Sequence[dict[str, Any]]
    genotype: Genotype
    text: str
    derived_accuracy: float
    seconds: float
    peak_memory_mib: float | None
    skip_share: float
    params: int
    macs: int
    versions: dict[str, Any]


def read_result(task: Task) -> SearchResult:
    """Read the run folder of a finished task.

    Raises:
        InputError: a file is missing or damaged.
    """
    run = Run.open(task.folder, lock=False)
    file = task.folder / "genotype.json"
    genotype, records = Genotype.read(file), run.metrics()
    if not records:
        raise InputError(f"run '{task.folder}' has a genotype and no metrics: remove the folder, to search again")
    kept = json.loads(file.read_text(encoding="utf-8"))
    ranked = kept.get("ranked")
    return SearchResult(
        task.spec.text,
        task.seed,
        records,
        genotype,
        str(genotype),
        ranked[0]["accuracy"] if ranked else records[-1]["derived_accuracy"],
        records[-1]["seconds"],
        task.noted().get("peak_memory_mib"),
        genotype.share(SKIP),
        kept["params"],
        kept["macs"],
        run.config["versions"] | {"threads": run.config["settings"]["threads"]},
    )
