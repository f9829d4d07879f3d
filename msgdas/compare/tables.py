"""Tables of trained networks: what each genotype of a space reached when it was trained by itself."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgdas.compare.nats import is_nats, read_nats_rows
from msgdas.errors import InputError
from msgdas.runs import write_atomic
from msgdas.spaces import Space, find_space

__all__ = ["ACCURACY", "GENOTYPE", "SECONDS", "Table", "read_nats", "read_table"]

GENOTYPE = ("genotype", "arch_str", "arch")
ACCURACY = ("c10_valid_200", "accuracy", "valid_acc", "mean_acc")
SECONDS = ("train_seconds", "train_sec_200_c10_valid")
"""Names of columns; of several in one file the first counts."""

Row = tuple[str, Mapping[str, Any]]  # where it is, its values


@dataclass(frozen=True)
class Table:
    """Accuracies by genotype.

    Attributes:
        source: the file.
        column: of the accuracies.
        accuracy: percent, by the genotype's official text.
        seconds: of training, by the same texts; empty where the file has none.
    """

    source: str
    column: str
    accuracy: Mapping[str, float]
    seconds: Mapping[str, float]

    def best(self) -> tuple[str, float]:
        """The genotype of the highest accuracy, and that."""
        return max(self.accuracy.items(), key=lambda pair: pair[1])

    def value(self, genotype: str) -> float:
        """The accuracy of a genotype.

        Raises:
            InputError: it is not in the table.
        """
        if genotype not in self.accuracy:
            raise InputError(f"table '{self.source}' has no '{self.column}' for {genotype}: complete it")
        return self.accuracy[genotype]

    def write(self, path: str | Path) -> None:
        """Write the table as CSV, to be read again in a moment."""
        text = io.StringIO()
        names = ["genotype", "accuracy", *(["train_seconds"] if self.seconds else [])]
        out = csv.writer(text, lineterminator="\n")
        out.writerow(names)
        for genotype, accuracy in self.accuracy.items():
            out.writerow([genotype, accuracy, *([self.seconds[genotype]] if self.seconds else [])])
        write_atomic(path, text.getvalue())


def read_table(path: str | Path, space: str, column: str | None = None) -> Table:
    """Read a table of ``space``.

    Args:
        path: ``.csv``, ``.csv.gz`` or ``.parquet`` with a line per genotype; ``.json``, an object of objects by
            genotype, as NAS-Bench-Macro's (Su et al. 2021, arXiv:2103.11922); a folder or a file ``.pbz2`` of
            NATS-Bench.
        column: of the accuracies in percent; default: the first of `ACCURACY`. Of NATS-Bench: the data set, as
            ``"cifar100"`` or ``"cifar100:12"`` (after so many epochs of a schedule); default: ``"cifar10-valid"``.

    Raises:
        InputError: one line that names the file, the row and the value.
    """
    path = Path(path)
    if is_nats(path):
        name = column or "cifar10-valid"
        return _table(path, read_nats_rows(path, name), find_space(space), "accuracy", name)
    try:
        return _table(path, _rows(path), find_space(space), column)
    except InputError:
        raise
    except (OSError, EOFError, zlib.error, ValueError, csv.Error, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"table '{path}' cannot be read: {reason}") from None


def read_nats(path: str | Path, dataset: str = "cifar10-valid", epochs: int = 200) -> Table:
    """Validation accuracies in percent, means over the seeds, and training seconds.

    Args:
        path: a file of one architecture, or a folder of them. All 15,625 take minutes: `Table.write` makes a CSV.
        dataset: ``cifar10-valid``, ``cifar100`` or ``ImageNet16-120``.
        epochs: of the training: 12 or 200.

    Raises:
        InputError: a file is damaged, wants more than plain values, or has no such results.
    """
    return read_table(path, "nasbench201", f"{dataset}:{epochs}")


def _table(path: Path, rows: Iterable[Row], space: Space, column: str | None, shown: str | None = None) -> Table:
    accuracy: dict[str, float] = {}
    seconds: dict[str, float] = {}
    names: tuple[str, str, str | None] | None = None
    for place, row in rows:
        names = names or _columns(path, list(row), column)
        where = f"table '{path}' {place}"
        genotype = _genotype(where, row.get(names[0]), space)
        found = _number(where, names[1], row.get(names[1]), 100.0)
        if accuracy.setdefault(genotype, found) != found:
            raise InputError(f"{where}: {genotype} has {found:g} and, before, {accuracy[genotype]:g}: keep one")
        if names[2]:
            seconds[genotype] = _number(where, names[2], row.get(names[2]), math.inf)
    if names is None:
        raise InputError(f"table '{path}' is empty: give one with a line per genotype")
    if max(accuracy.values()) <= 1:
        raise InputError(f"table '{path}' column '{names[1]}' has no value above 1: give percent, not fractions")
    return Table(str(path), shown or names[1], accuracy, seconds)


def _columns(path: Path, there: list[str], column: str | None) -> tuple[str, str, str | None]:
    """The columns of genotypes, accuracies and, maybe, seconds."""
    genotype = _first(GENOTYPE, there)
    accuracy = _first((column,) if column else ACCURACY, there)
    for found, wanted in ((genotype, GENOTYPE), (accuracy, (column,) if column else ACCURACY)):
        if found is None:
            names = ", ".join(str(name) for name in there[:12])
            way = "" if wanted is GENOTYPE else ": name one with --column"
            raise InputError(f"table '{path}' has no column {' or '.join(map(str, wanted))}, but {names}{way}")
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
        value = float(given)  # type: ignore[arg-type] # what it refuses is refused here
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value <= most or math.isinf(value):
        raise InputError(f"{where}: {name} is {given!r}: give {'0 to 100' if most == 100 else 'seconds'}")
    return value


# ------------------------------------------------------------------- files to rows


def _rows(path: Path) -> Iterator[Row]:
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        return _csv(path)
    if name.endswith(".parquet"):
        return _parquet(path)
    if name.endswith(".json"):
        return _json(path)
    raise InputError(f"table '{path}': use .csv, .csv.gz, .parquet, .json or a folder with NATS-Bench's .pbz2 files")


def _csv(path: Path) -> Iterator[Row]:
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        lines = csv.DictReader(file)
        for row in lines:
            yield f"line {lines.line_num}", row


def _json(path: Path) -> Iterator[Row]:
    found = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    if not isinstance(found, dict) or not all(isinstance(row, dict) for row in found.values()):
        raise InputError(f'table \'{path}\' is no object of objects such as {{"00000000": {{"mean_acc": 93.1}}}}')
    for genotype, row in found.items():
        yield f"entry {genotype!r}", row | {"genotype": genotype}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise ValueError(f"{twice!r} is there twice")
    return found


def _parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"table '{path}' needs pyarrow: pip install 'msgdas[tables]'") from None
    for number, row in enumerate(parquet.read_table(path).to_pylist(), 1):
        yield f"row {number}", row
