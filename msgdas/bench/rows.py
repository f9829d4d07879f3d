"""Results of a benchmark: ratios with quartiles, as CSV with versions and hardware, compared with earlier ones."""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from msgdas.errors import InputError
from msgdas.runs import versions, write_atomic

__all__ = ["Comparison", "Earlier", "Row", "machine", "read_rows", "to_table", "write_rows"]

TOLERANCE = 0.25  # relative growth of a ratio that is accepted, on top of its quartile range
SAME = ("space", "channels", "cells", "image_size", "batch", "threads", "device", "native")  # must match to compare
FORMER = {"space": "nasbench201", "image_size": "32", "device": "cpu", "native": "False"}  # columns older files lack


@dataclass(frozen=True)
class Row:
    """One line of a result.

    Attributes:
        values: the measurements.
        unit: of the values; ``"ratio"`` for a ratio.
        target: largest accepted median; None: no target.
    """

    name: str
    values: Sequence[float]
    unit: str = "ratio"
    target: float | None = None

    def quartiles(self) -> tuple[float, float, float]:
        """First quartile, median and third quartile."""
        at = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
        low, median, high = torch.tensor(self.values, dtype=torch.float64).quantile(at).tolist()
        return low, median, high

    @property
    def reached(self) -> str:
        """Whether the unrounded median meets the target, in words; empty without a target."""
        if self.target is None:
            return ""
        return "reached" if self.quartiles()[1] <= self.target else "not reached"


def to_table(rows: Sequence[Row], title: str) -> Table:
    """Table of 80 columns: median, quartiles and target of every row."""
    table = Table(title=title, box=None, pad_edge=False)
    table.add_column("# what")
    for column in ("median", "quartiles", "at most"):
        table.add_column(column, justify="right")
    table.add_column("")
    for row in rows:
        low, median, high = (f"{v:.3f}" if row.unit == "ratio" else f"{v:.0f}" for v in row.quartiles())
        unit = "" if row.unit == "ratio" else f" {row.unit}"
        target = "" if row.target is None else f"{row.target:.3f}"
        style = {"reached": "green", "not reached": "red"}.get(row.reached)
        table.add_row(row.name, median + unit, f"{low}–{high}", target, row.reached, style=style)
    return table


def machine(device: str) -> dict[str, str]:
    """Versions, hardware and the date."""
    on = torch.device(device)
    known = versions()
    return {
        **{name: str(known[name]) for name in ("msgdas", "torch", "python")},
        "cpu": _cpu(),
        "device": f"{device}: {torch.cuda.get_device_name(on)}" if on.type == "cuda" else device,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _cpu() -> str:
    """Name of the CPU, as the system reports it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def write_rows(path: Path, rows: Sequence[Row], where: Mapping[str, object]) -> None:
    """Write one CSV line per row. ``where``: settings and machine, further columns of each line.

    Raises:
        InputError: the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(
        text, ["name", "value", "q1", "q3", "n", "unit", "target", "reached", *where], lineterminator="\n"
    )
    writer.writeheader()
    for row in rows:
        low, median, high = (f"{v:.6f}" for v in row.quartiles())
        target = "" if row.target is None else f"{row.target:.4f}"
        line = {"name": row.name, "value": median, "q1": low, "q3": high, "n": len(row.values), "unit": row.unit}
        writer.writerow({**line, "target": target, "reached": row.reached, **where})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.getvalue())
    except OSError as error:
        raise InputError(f"'{path}' cannot be written ({error.strerror}): give another file") from None


def read_rows(file: Path) -> list[dict[str, str]]:
    """Read the lines of a file that `write_rows` wrote.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        lines = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
        for line in lines:
            _ = line["name"], line["unit"], *map(float, (line["value"], line["q1"], line["q3"]))
    except OSError as error:
        raise InputError(f"'{file}' cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, csv.Error):
        lines = []
    if not lines:
        raise InputError(f"'{file}' is not a result of a benchmark: it needs lines with name, value, q1, q3, unit")
    return [FORMER | line for line in lines]


class Comparison(NamedTuple):
    """Comparison of a result with an earlier one.

    Attributes:
        compared: number of ratios in both.
        missing: names of the ratios only in the earlier one.
        grown: a line of 80 columns for each ratio that grew by more than `TOLERANCE` plus the quartile range.
    """

    compared: int
    missing: list[str]
    grown: list[str]


@dataclass(frozen=True)
class Earlier:
    """Ratios of an earlier result with the same settings. Times are left out: they depend on the machine."""

    file: Path
    ratios: Mapping[str, tuple[float, float]]  # name → value, quartile range

    @classmethod
    def read(cls, file: Path, where: Mapping[str, object]) -> Earlier:
        """Read an earlier result to compare with.

        Raises:
            InputError: the file is missing or damaged, or was measured with settings other than ``where``.
        """
        lines = read_rows(file)
        for name in SAME:
            now = _kind(str(where[name]))
            for then in {_kind(str(line.get(name))) for line in lines}:
                if then != now:
                    raise InputError(f"'{file}' was measured with {name} {then}, this with {now}: measure both alike")
        ratios = [line for line in lines if line["unit"] == "ratio"]
        return cls(file, {r["name"]: (float(r["value"]), float(r["q3"]) - float(r["q1"])) for r in ratios})

    def compare(self, rows: Sequence[Row], tolerance: float = TOLERANCE) -> Comparison:
        """Find ratios that exceed the earlier ones by more than ``tolerance`` plus the larger quartile range."""
        new = {row.name: row.quartiles() for row in rows if row.unit == "ratio"}
        both = [name for name in new if name in self.ratios]
        grown = []
        for name in both:
            (low, median, high), (then, spread) = new[name], self.ratios[name]
            limit = then * (1 + tolerance) + max(high - low, spread)
            if median > limit:
                grown.append(f"{name:<44.44} {then:.3f} -> {median:.3f}, above {limit:.3f}")
        return Comparison(len(both), [name for name in self.ratios if name not in new], grown)

    def tell(self, rows: Sequence[Row], console: Console) -> bool:
        """Print the comparison; return whether no ratio has grown."""
        result = self.compare(rows)
        missing = f", {len(result.missing)} were not measured" if result.missing else ""
        console.print(f"\nagainst {self.file}:", soft_wrap=True)
        console.print(f"{result.compared} ratios compared, {len(result.grown)} have grown{missing}")
        for line in result.grown:
            console.print(line, soft_wrap=True)
        return not result.grown


def _kind(value: str) -> str:
    """The device without its model: ``"cuda: NVIDIA H200"`` is ``"cuda"``."""
    return value.partition(":")[0]
