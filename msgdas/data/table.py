"""List image files by a table of labels: a CSV file with a row per image."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from msgdas.data.decode import SUFFIXES
from msgdas.data.listing import Files, Listing, is_special, part_of, short, some
from msgdas.errors import InputError

__all__ = ["list_table"]

COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "image_id", "img", "id"),
    "label": ("label", "class", "class_name", "category", "target", "y"),
    "part": ("part", "split", "subset", "set"),
    "group": ("group", "patient", "patient_id", "subject", "user", "camera"),
}
"""Names of the columns that are looked for, in any case."""
LARGEST = 2**30  # bytes of a table


class _Row(NamedTuple):
    line: int
    path: str
    label: str
    part: str
    group: str


def list_table(table: Path, root: Path | None = None) -> Listing:
    """The files in a CSV file with the columns path and label and, if there are, part and group (see `COLUMNS`).

    Without a line of names, the first column is the path and the second the label.

    Args:
        root: folder that the paths are relative to; ``None``: the table's.

    Raises:
        InputError: the table cannot be read, lacks a column or a label, names a file that is not there, gives an image
            two labels, or has fewer than two classes.
    """
    root = table.parent if root is None else root
    rows = list(_rows(table, root))
    if not rows:
        raise InputError(f"table '{table}' has no rows: give a path and a label in each")
    classes = tuple(sorted({row.label for row in rows}))
    if len(classes) < 2:
        raise InputError(f"table '{table}' has only one class ({short(classes[0])}): give 2 or more")
    index = {name: i for i, name in enumerate(classes)}
    parts: dict[str, Files] = {"train": [], "val": [], "test": []}
    seen: dict[Path, _Row] = {}
    missing = list[_Row]()
    for row in rows:
        path = _found(root, row.path)
        if path is None:
            missing.append(row)
        elif path not in seen:
            seen[path] = row
            parts[row.part].append((path, index[row.label]))
        elif seen[path][2:] != row[2:]:
            raise InputError(
                f"table '{table}', line {row.line}: {short(row.path)} has another label or part than in line "
                f"{seen[path].line}; give each image one"
            )
    if missing:
        raise InputError(
            f"table '{table}', line {missing[0].line}: there is no file {short(missing[0].path)} in '{root}'"
            f"{f', nor {len(missing) - 1} others' if missing[1:] else ''}; correct the paths, or give --data FOLDER"
        )
    stranger = {label for part in ("val", "test") for _, label in parts[part]} - {label for _, label in parts["train"]}
    if stranger:
        raise InputError(f"table '{table}': class {short(classes[min(stranger)])} has no image in train; add some")
    return Listing(
        table.stem if table.parent == root else root.resolve().name,
        root,
        classes,
        {part: sorted(files) for part, files in parts.items() if files},
        groups={path: row.group for path, row in seen.items() if row.group},
        labels=table,
    )


def _rows(table: Path, root: Path) -> Iterator[_Row]:
    try:
        if table.stat().st_size > LARGEST:
            raise InputError(f"table '{table}' is larger than 1 GiB: split it")
        with open(table, encoding="utf-8-sig", newline="") as file:
            delimiter = _delimiter(file.readline())
            file.seek(0)
            yield from _parsed(table, root, list(csv.reader(file, delimiter=delimiter)))
    except (OSError, UnicodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"table '{table}' cannot be read: {reason}; give a CSV file in UTF-8") from None


def _delimiter(line: str) -> str:
    return max(",;\t", key=line.count)


def _parsed(table: Path, root: Path, lines: Sequence[Sequence[str]]) -> Iterator[_Row]:
    columns, first = _columns(table, root, lines[0] if lines else [])
    for number, cells in enumerate(lines[first:], first + 1):
        if not any(cells):
            continue
        if len(cells) < len(lines[0]):
            raise InputError(f"table '{table}', line {number}: {len(cells)} cells, not {len(lines[0])}")
        row = {name: cells[place].strip() for name, place in columns.items()}
        for name in ("path", "label"):
            if not row[name]:
                raise InputError(f"table '{table}', line {number}: no {name}; give one, or leave the line out")
        yield _Row(number, row["path"], row["label"], _part(table, number, row.get("part", "")), row.get("group", ""))


def _columns(table: Path, root: Path, names: Sequence[str]) -> tuple[Mapping[str, int], int]:
    """Column → its place, and the first line of data."""
    if len(names) >= 2 and _found(root, names[0].strip()) is not None:
        return {"path": 0, "label": 1}, 0
    lower = [name.strip().lower() for name in names]
    columns = {
        column: lower.index(name)
        for column, known in COLUMNS.items()
        if (name := next((name for name in known if name in lower), None)) is not None
    }
    for column in ("path", "label"):
        if column not in columns:
            raise InputError(
                f"table '{table}' has no column of {column}s (columns {some(list(names))}): "
                f"name it {' or '.join(COLUMNS[column][:3])}"
            )
    return columns, 1


def _part(table: Path, line: int, name: str) -> str:
    part = part_of(name) if name else "train"
    if part is None:
        raise InputError(f"table '{table}', line {line}: part {short(name)}; use train, val or test")
    return part


def _found(root: Path, name: str) -> Path | None:
    """The file of that name, with a suffix of an image if it has none."""
    try:
        for path in (root / name, *(root / f"{name}{suffix}" for suffix in (".jpg", ".png", *sorted(SUFFIXES)))):
            if os.path.isfile(path) and not is_special(path):
                return path
    except ValueError:  # a null byte
        pass
    return None
