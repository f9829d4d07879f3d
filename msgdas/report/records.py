"""What lies in a run folder, read without trusting it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgdas.errors import InputError

__all__ = ["Record", "Run", "number", "read_run", "series"]

Record = dict[str, Any]


@dataclass
class Run:
    """A run folder's JSON. What is absent is empty; ``problems`` says in a line each what was there and damaged."""

    path: Path
    config: Record = field(default_factory=dict)
    metrics: list[Record] = field(default_factory=list)
    genotype: Record = field(default_factory=dict)
    train_config: Record = field(default_factory=dict)
    train_metrics: list[Record] = field(default_factory=list)
    result: Record = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_run(path: str | Path) -> Run:
    """Everything a report needs from the run folder ``path``.

    Raises:
        InputError: not a folder, or one without any file of a run.
    """
    run = Run(Path(path))
    if not run.path.is_dir():
        raise InputError(f"run {str(path)!r} is not a folder")
    run.config = _read_object(run, "config.json")
    run.metrics = _read_lines(run, "metrics.jsonl")
    run.genotype = _read_object(run, "genotype.json")
    run.train_config = _read_object(run, "train/config.json")
    run.train_metrics = _read_lines(run, "train/metrics.jsonl")
    run.result = _read_object(run, "train/result.json")
    if not (run.config or run.metrics or run.genotype or run.train_metrics or run.result or run.problems):
        raise InputError(f"run {str(path)!r} holds no run: no config.json, metrics.jsonl or genotype.json in it")
    return run


def _read_object(run: Run, name: str) -> Record:
    path = run.path / name
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        run.problems.append(f"{name} could not be read and is left out: {error}")
        return {}
    if not isinstance(found, dict):
        run.problems.append(f"{name} is not a JSON object and is left out")
        return {}
    return found


def _read_lines(run: Run, name: str) -> list[Record]:
    """The objects of a JSON-lines file. A torn last line is a run cut off while writing and is dropped silently."""
    path = run.path / name
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    records = []
    for count, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        elif line.strip() and count < len(lines):
            run.problems.append(f"{name} line {count} is damaged and left out")
    return records


def number(value: object) -> float:
    """``value`` as a float; NaN for anything that is not a number, ``None`` among it."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def series(records: list[Record], key: str) -> list[float]:
    """The numbers under ``key``, one per record, NaN where there is none."""
    return [number(record.get(key)) for record in records]
