"""The one way files are written: complete or not at all."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msgdas.errors import InputError

__all__ = [
    "append",
    "is_leftover",
    "refuse_irregular",
    "remove_leftovers",
    "staged",
    "told",
    "write_atomic",
    "write_json",
]

STAGED = re.compile(r"\..+\.(?:(?P<process>\d+)-)?[0-9a-f]{32}\.tmp", re.DOTALL)  # versions up to 0.1 gave no process
KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def write_atomic(path: str | os.PathLike[str], data: bytes | str, *more: memoryview, mode: int | None = None) -> None:
    """Write ``data``, and ``more`` after it, to ``path``. A reader sees the old content or the new, never a part.

    Args:
        data: bytes, or text, which becomes UTF-8. What a name that is not UTF-8 has in Python (``"caf\\udce9"``) is
            written with a backslash, which JSON reads back as it was.
        mode: permissions of the file; None: the usual ones.

    Raises:
        InputError: ``path`` is there and is no regular file; it is unchanged.
        OSError: the write failed; ``path`` is unchanged.
    """
    path = Path(path)
    data = data.encode(errors="backslashreplace") if isinstance(data, str) else data
    with staged(path, data, *more) as ready:
        if mode is not None:
            ready.chmod(mode)
        os.replace(ready, path)


def append(path: Path, line: bytes) -> None:
    """Append a whole line, with its line end, to ``path``, synced to disk. An incomplete last line, which a killed
    process leaves, is removed before.

    Raises:
        InputError: ``path`` is there and is no regular file; it is unchanged.
        OSError: the write failed; the lines before are unchanged.
    """
    refuse_irregular(path)
    with _naming(path), open(path, "ab+") as file:
        _cut_torn_line(file)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def told(error: OSError) -> str:
    """What the system said, for a message: ``'FILE': No space left on device``."""
    reason = error.strerror or str(error) or type(error).__name__
    return reason if error.filename is None else f"'{os.fsdecode(error.filename)}': {reason}"


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
        OSError: the write failed; it names ``path``.
    """
    refuse_irregular(path)
    ready = path.with_name(f".{_short(path.name)}.{os.getpid()}-{uuid.uuid4().hex}.tmp")
    with _naming(path):
        try:
            with open(ready, "xb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            yield ready
            _sync_folder(path.parent)
        finally:
            with suppress(OSError):  # a read-only or vanished folder: the error before it says so
                ready.unlink(missing_ok=True)


@contextmanager
def staged_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder next to ``folder`` that takes its place at the end, unless another process was as fast. It
    is gone after an error; what a killed process left is removed by the next."""
    for left in folder.parent.glob(f".{_short(folder.name)}.*.tmp"):
        if is_leftover(left):
            shutil.rmtree(left, ignore_errors=True)
    ready = folder.with_name(f".{_short(folder.name)}.{os.getpid()}-{uuid.uuid4().hex}.tmp")
    ready.mkdir()
    try:
        yield ready
        try:
            ready.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(ready, ignore_errors=True)


def write_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a new file in a staged folder, and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.writelines(chunks)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors name ``path``, not a temporary file or nothing."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = os.fspath(path)
            del error.filename2
        raise


def _short(name: str) -> str:
    """The name with at most 200 bytes, so that a temporary file's is not too long where the name itself is not."""
    return os.fsdecode(os.fsencode(name)[:200])


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
            with suppress(OSError):  # a read-only folder: it stays
                path.unlink()


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


def _cut_torn_line(file: io.BufferedRandom) -> None:
    """Remove an incomplete last line."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _sync_folder(path: Path) -> None:
    """Sync the folder's renames to disk, where the system supports it."""
    with suppress(OSError):
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
