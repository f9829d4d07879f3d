"""The one way files are written: complete or not at all."""

from __future__ import annotations

import json
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msgdas.errors import InputError

__all__ = ["is_leftover", "refuse_irregular", "remove_leftovers", "staged", "write_atomic", "write_json"]

STAGED = re.compile(r"\..+\.(?:(?P<process>\d+)-)?[0-9a-f]{32}\.tmp", re.DOTALL)  # versions up to 0.1 gave no process
KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write ``data`` (text as UTF-8) to ``path``. A reader sees the old content or the new, never a part.

    Raises:
        InputError: ``path`` is there and is no regular file; it is unchanged.
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
    """Yield a complete, synced temporary file next to ``path``. The body moves it into place; it is removed at exit.

    Raises:
        InputError: ``path`` is there and is no regular file. Nothing is written.
    """
    refuse_irregular(path)
    ready = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex}.tmp")
    try:
        with open(ready, "xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        yield ready
        _sync_folder(path.parent)
    finally:
        ready.unlink(missing_ok=True)


def refuse_irregular(path: str | os.PathLike[str]) -> None:
    """Refuse to write to anything but a regular file or a free name: a device or a pipe would be replaced by a file.

    Raises:
        InputError: ``path`` is a folder, symbolic link, pipe, socket or device.
    """
    try:
        kind = stat.S_IFMT(os.lstat(path).st_mode)
    except OSError:  # nothing there; where it cannot be reached, the write says so
        return
    if kind != stat.S_IFREG:
        raise InputError(f"'{os.fspath(path)}' is {KINDS.get(kind, 'no regular file')}: give the path of a file")


def is_leftover(path: Path) -> bool:
    """Whether ``path`` has the name of a staged file whose process no longer runs."""
    found = STAGED.fullmatch(path.name)
    return found is not None and not _runs(found["process"])


def remove_leftovers(folder: Path) -> None:
    """Remove the staged files that killed processes left in ``folder``, before this process writes there."""
    for path in folder.glob(".*.tmp"):
        if is_leftover(path):
            path.unlink(missing_ok=True)


def _runs(process: str | None) -> bool:
    """Whether another process of that number runs. Containers reuse ours, and this one staged nothing yet."""
    if process is None or int(process) == os.getpid():
        return False
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True


def _sync_folder(path: Path) -> None:
    """Sync the folder's renames to disk, where the system supports it."""
    with suppress(OSError):
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
