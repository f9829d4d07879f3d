"""The one way files are written: complete or not at all."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = ["remove_leftovers", "staged", "write_atomic", "write_json"]

LEFTOVER = ".*.tmp"  # staged files of a process that was killed


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write ``data`` (text as UTF-8) to ``path``. A reader sees the old content or the new, never a part.

    Raises:
        OSError: the write failed; ``path`` is unchanged.
    """
    path = Path(path)
    with staged(path, data.encode() if isinstance(data, str) else data) as ready:
        os.replace(ready, path)


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write ``obj`` to ``path`` atomically as indented JSON, keys in their own order.

    Raises:
        ValueError: ``obj`` holds a NaN or an infinity, which JSON cannot express. Nothing is written.
        TypeError: ``obj`` holds something else that JSON cannot express. Nothing is written.
    """
    write_atomic(path, json.dumps(obj, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


@contextmanager
def staged(path: Path, *parts: bytes | memoryview) -> Iterator[Path]:
    """Yield a complete, synced temporary file next to ``path``. The body moves it into place; it is removed at exit."""
    ready = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(ready, "xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        yield ready
        _sync_folder(path.parent)
    finally:
        ready.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the staged files that killed processes left in ``folder``."""
    for leftover in folder.glob(LEFTOVER):
        leftover.unlink(missing_ok=True)


def _sync_folder(path: Path) -> None:
    """Sync the folder's renames to disk, where the system supports it."""
    with suppress(OSError):
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
