"""Read the JSON files of a run folder, tolerating missing and damaged ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgdas.errors import InputError
from msgdas.report.numbers import number
from msgdas.runs import parse_json, read_json

__all__ = ["Record", "RunFiles", "read_run_files", "series"]

Record = dict[str, Any]


@dataclass
class RunFiles:
    """The JSON files of a run folder. Missing ones are empty; ``problems`` has a line for each damaged one."""

    path: Path
    config: Record = field(default_factory=dict)
    metrics: list[Record] = field(default_factory=list)
    genotype: Record = field(default_factory=dict)
    train_config: Record = field(default_factory=dict)
    train_metrics: list[Record] = field(default_factory=list)
    result: Record = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_run_files(path: str | Path) -> RunFiles:
    """Read everything a report needs from the run folder ``path``.

    Raises:
        InputError: ``path`` is not a folder, or holds no file of a run.
    """
    run = RunFiles(Path(path))
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


def _read_object(run: RunFiles, name: str) -> Record:
    path = run.path / name
    if not path.exists():
        return {}
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        run.problems.append(f"{name} could not be read and is left out: {error}")
        return {}
    if not isinstance(content, dict):
        run.problems.append(f"{name} is not a JSON object and is left out")
        return {}
    return content


def _read_lines(run: RunFiles, name: str) -> list[Record]:
    """The objects of a JSON-lines file. An incomplete last line, from a killed process, is dropped silently."""
    path = run.path / name
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        run.problems.append(f"{name} could not be read and is left out: {error.strerror}")
        return []
    records = []
    for count, line in enumerate(lines, 1):
        try:
            record = parse_json(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        elif line.strip() and count < len(lines):
            run.problems.append(f"{name} line {count} is damaged and left out")
    return records


def series(records: list[Record], key: str) -> list[float]:
    """The numbers under ``key``, one per record, NaN where a record has none."""
    return [number(record.get(key)) for record in records]
