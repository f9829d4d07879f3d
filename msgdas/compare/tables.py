"""Tables of trained networks: the accuracy of each genotype of a space when trained from scratch."""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from msgdas.compare.nats import is_nats, read_nats_rows
from msgdas.errors import InputError, shown
from msgdas.runs import read_json, write_atomic
from msgdas.spaces import Space, find_space

__all__ = ["ACCURACY", "GENOTYPE", "SECONDS", "Table", "read_nats", "read_table"]

GENOTYPE = ("genotype", "arch_str", "arch")
ACCURACY = ("c10_valid_200", "accuracy", "valid_acc", "mean_acc")
SECONDS = ("train_seconds", "train_sec_200_c10_valid")
"""Accepted column names; if a file has several, the first of these counts."""

LARGEST = 2**26  # bytes of a text, unpacked
LONGEST_LINE = 2**20  # characters
LONGEST_REASON = 300  # characters
LONGEST_NAME = 40
MOST_ROWS = 1_000_000
DAMAGE = (OSError, EOFError, zlib.error, csv.Error, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError)

Row = tuple[str, Mapping[str, Any]]  # its place in the file, its values


@dataclass(frozen=True)
class Table:
    """Accuracies by genotype.

    Attributes:
        source: path of the file.
        column: name of the accuracy column.
        accuracy: percent, by the genotype's official text.
        seconds: training time, by the same texts; empty if the file has none.
    """

    source: str
    column: str
    accuracy: Mapping[str, float]
    seconds: Mapping[str, float]

    def best(self) -> tuple[str, float]:
        """The genotype with the highest accuracy, and that accuracy."""
        return max(self.accuracy.items(), key=lambda pair: pair[1])

    def value(self, genotype: str) -> float:
        """The accuracy of ``genotype``.

        Raises:
            InputError: the table does not have it.
        """
        if genotype not in self.accuracy:
            raise InputError(f"table {shown(self.source)} has no '{self.column}' for {genotype}: complete it")
        return self.accuracy[genotype]

    def write(self, path: str | Path) -> None:
        """Write the table as CSV, which `read_table` reads back quickly."""
        import pandas  # lazy: it takes half a second

        columns = {"accuracy": self.accuracy} | ({"train_seconds": self.seconds} if self.seconds else {})
        write_atomic(path, pandas.DataFrame(columns).to_csv(index_label="genotype", lineterminator="\n"))


def read_table(path: str | Path, space: str, column: str | None = None) -> Table:
    """Read a table of ``space``.

    Args:
        path: ``.csv``, ``.csv.gz`` or ``.parquet`` with a line per genotype; ``.json`` with an object of objects by
            genotype, as NAS-Bench-Macro has it (Su et al. 2021, arXiv:2103.11922); a folder or a ``.pbz2`` file of
            NATS-Bench.
            Up to a million rows and 64 MiB, unpacked.
        column: the accuracies, in percent; default: the first of `ACCURACY`. For NATS-Bench the data set, such as
            ``"cifar100"`` or ``"cifar100:12"`` (the 12-epoch schedule); default: ``"cifar10-valid"``.

    Raises:
        InputError: the file cannot be read, or a value is wrong; one line that names the file, the row and the value.
    """
    path = Path(path)
    if is_nats(path):
        name = column or "cifar10-valid"
        return _table(path, read_nats_rows(path, name), find_space(space), "accuracy", name)
    try:
        return _table(path, _rows(path), find_space(space), column)
    except InputError:
        raise
    except DAMAGE as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:LONGEST_REASON]
        raise InputError(f"table {shown(str(path))} cannot be read: {reason or type(error).__name__}") from None


def read_nats(path: str | Path, dataset: str = "cifar10-valid", epochs: int = 200) -> Table:
    """Read validation accuracies (percent, means over seeds) and training seconds from NATS-Bench.

    Args:
        path: a file of one architecture, or a folder of them. All 15,625 take minutes: save them by `Table.write`.
        dataset: ``cifar10-valid``, ``cifar100`` or ``ImageNet16-120``.
        epochs: of the training, 12 or 200.

    Raises:
        InputError: a file is damaged, needs more than plain values, or lacks these results.
    """
    return read_table(path, "nasbench201", f"{dataset}:{epochs}")


def _table(path: Path, rows: Iterable[Row], space: Space, column: str | None, called: str | None = None) -> Table:
    accuracy: dict[str, float] = {}
    seconds: dict[str, float] = {}
    names: tuple[str, str, str | None] | None = None
    for place, row in rows:
        names = names or _columns(path, list(row), column)
        where = f"table {shown(str(path))} {place}"
        genotype = _genotype(where, row.get(names[0]), space)
        value = _number(where, names[1], row.get(names[1]), 100.0)
        if accuracy.setdefault(genotype, value) != value:
            raise InputError(f"{where}: {genotype} has {value:g} and, before, {accuracy[genotype]:g}: keep one")
        if names[2]:
            seconds[genotype] = _number(where, names[2], row.get(names[2]), math.inf)
    if names is None:
        raise InputError(f"table {shown(str(path))} is empty: give one with a line per genotype")
    if max(accuracy.values()) <= 1:
        raise InputError(
            f"table {shown(str(path))} column '{names[1]}' has no value above 1: give percent, not fractions"
        )
    return Table(str(path), called or names[1], accuracy, seconds)


def _columns(path: Path, there: list[str], column: str | None) -> tuple[str, str, str | None]:
    """Names of the genotype, accuracy and (optional) seconds columns."""
    genotype = _first(GENOTYPE, there)
    accuracy = _first((column,) if column else ACCURACY, there)
    for name, wanted in ((genotype, GENOTYPE), (accuracy, (column,) if column else ACCURACY)):
        if name is None:
            names = ", ".join(" ".join(str(name)[:LONGEST_NAME].split()) for name in there[:12])
            way = "" if wanted is GENOTYPE else ": name one with --column"
            raise InputError(
                f"table {shown(str(path))} has no column {' or '.join(map(str, wanted))}, but {names}{way}"
            )
    return str(genotype), str(accuracy), _first(SECONDS, there)


def _first(wanted: Iterable[str], there: list[str]) -> str | None:
    return next((name for name in wanted if name in there), None)


def _genotype(where: str, text: object, space: Space) -> str:
    try:
        return space.to_string(space.from_string(str(text)))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _number(where: str, name: str, given: object, most: float) -> float:
    try:
        value = math.nan if isinstance(given, bool) else float(given)  # type: ignore[arg-type] # or the except clause
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not 0 <= value <= most or math.isinf(value):
        raise InputError(f"{where}: {name} is {shown(given)}: give {'0 to 100' if most == 100 else 'seconds'}")
    return value


# --- read rows from files ---


def _rows(path: Path) -> Iterator[Row]:
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        return _csv(path)
    if name.endswith(".parquet"):
        return _parquet(path)
    if name.endswith(".json"):
        return _json(path)
    raise InputError(
        f"table {shown(str(path))}: use .csv, .csv.gz, .parquet, .json or a folder with NATS-Bench's .pbz2 files"
    )


def _csv(path: Path) -> Iterator[Row]:
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        lines = csv.DictReader(_lines(file))
        for row in lines:
            yield f"line {lines.line_num}", row


def _lines(file: IO[str]) -> Iterator[str]:
    """The lines of a text, in bounded memory and time whatever it unpacks to."""
    size = number = 0
    while line := file.readline(LONGEST_LINE):
        size, number = size + len(line), number + 1
        if len(line) == LONGEST_LINE:
            raise ValueError(f"line {number} is longer than {LONGEST_LINE:,} characters")
        if size > LARGEST or number > MOST_ROWS:
            raise ValueError(f"it has more than {MOST_ROWS:,} lines or {LARGEST // 2**20} MiB")
        yield line


def _json(path: Path) -> Iterator[Row]:
    rows = read_json(path, object_pairs_hook=_once)
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise InputError(
            f'table {shown(str(path))} is not an object of objects such as {{"00000000": {{"mean_acc": 93.1}}}}'
        )
    for genotype, row in rows.items():
        yield f"entry {shown(genotype)}", row | {"genotype": genotype}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that an object has twice; `json` would keep the last."""
    unique: dict[str, Any] = {}
    for name, value in pairs:
        if name in unique:
            raise ValueError(f"{shown(name)} is there twice")
        unique[name] = value
    return unique


def _parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"table {shown(str(path))} needs pyarrow: pip install 'msgdas[tables]'") from None
    with parquet.ParquetFile(path) as file:
        groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
        if file.metadata.num_rows > MOST_ROWS or sum(group.total_byte_size for group in groups) > LARGEST:
            raise ValueError(f"it has more than {MOST_ROWS:,} rows or {LARGEST // 2**20} MiB")
        number = 0
        for batch in file.iter_batches(batch_size=1000):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
