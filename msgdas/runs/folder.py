"""The run folder: everything that touches its disk, for a search and for a retraining alike.

==================== ==============================================================================================
``config.json``      all settings, written once
``metrics.jsonl``    one JSON record a line, only ever appended to (and cut back when a run is resumed)
``checkpoint.pt``    the newest state; ``checkpoint.prev.pt`` the one before it
``.lock``            held by the one process that writes
==================== ==============================================================================================

Every file appears complete or not at all, so a run may be killed at any moment and resumed. A checkpoint ends in the
SHA-256 of what is before it; ``torch.load(path)`` reads it all the same.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import math
import os
import pickle
import platform
import signal
import threading
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch.serialization import get_unsafe_globals_in_checkpoint

from msgdas.errors import InputError

__all__ = ["Run", "Stop", "stop_on_signals", "versions", "write_atomic", "write_json"]

CONFIG, METRICS, NEWEST, PREVIOUS, LOCK = (
    "config.json",
    "metrics.jsonl",
    "checkpoint.pt",
    "checkpoint.prev.pt",
    ".lock",
)
LEFTOVER = ".*.tmp"  # what a killed process was still writing


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write ``data`` (text as UTF-8) to ``path``: whoever reads it sees the old content or the new, never a part.

    Raises:
        OSError: the disk refused; ``path`` is then what it was.
    """
    path = Path(path)
    with _staged(path, data.encode() if isinstance(data, str) else data) as ready:
        os.replace(ready, path)


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write ``obj`` to ``path`` atomically as indented JSON, keys in their own order.

    Raises:
        ValueError: ``obj`` holds a NaN or an infinity, which JSON cannot say. Nothing is written.
        TypeError: ``obj`` holds something else that JSON cannot say. Nothing is written.
    """
    write_atomic(path, json.dumps(obj, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def versions() -> dict[str, str | int | None]:
    """What a result depends on besides its settings: versions, platform, number of CPUs and of torch's threads."""
    return {
        "msgdas": _version("msgdas"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": _version("torchvision"),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


class Run:
    """A run folder, opened by `create` (new) or `open` (existing); a context manager.

    Attributes:
        path: the folder.
        config: the settings in ``config.json``, as JSON gives them back (a tuple has become a list).
    """

    def __init__(self, path: Path, config: dict[str, Any], lock: FileLock | None) -> None:
        self.path = path
        self.config = config
        self._lock = lock

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: dict[str, Any]) -> Run:
        """Make the folder, lock it and write ``config.json``.

        Raises:
            InputError: the folder holds a run or any other file, is in use, or cannot be written.
            ValueError, TypeError: ``config`` cannot be said in JSON. Nothing is made.
        """
        path = Path(path)
        config = json.loads(json.dumps(config, allow_nan=False))
        _refuse_used(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make run folder '{path}' ({error.strerror}): give another --out") from error
        lock = _lock(path)
        try:
            _refuse_used(path)  # again: another process may have been faster
            write_json(path / CONFIG, config)  # with it the folder is a run
            write_atomic(path / METRICS, b"")
        except BaseException:
            lock.release()
            raise
        return cls(path, config, lock)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, lock: bool = True) -> Run:
        """Open an existing run.

        Args:
            lock: to write. ``False``: to read only, at any time, also while another process writes.

        Raises:
            InputError: there is no run, its ``config.json`` is damaged, or another process writes.
        """
        path = Path(path)
        config = _read_config(path)
        if not lock:
            return cls(path, config, None)
        held = _lock(path)
        for leftover in path.glob(LEFTOVER):
            leftover.unlink(missing_ok=True)
        return cls(path, config, held)

    def close(self) -> None:
        """Let go of the lock; reading goes on to work, writing does not."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def log(self, record: dict[str, Any]) -> None:
        """Append one record to ``metrics.jsonl``, on the disk when this returns; NaN and infinities become ``null``."""
        self._writing()
        line = json.dumps(_finite(record), allow_nan=False) + "\n"
        with open(self.path / METRICS, "ab+") as file:
            _cut_torn_line(file)
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def metrics(self) -> list[dict[str, Any]]:
        """All records so far; a last line that was torn by a kill is not one.

        Raises:
            InputError: another line is damaged.
        """
        return [self._record(i, line) for i, line in enumerate(self._lines())]

    def cut_metrics(self, lines: int) -> None:
        """Cut ``metrics.jsonl`` back to its first ``lines`` records, atomically.

        Raises:
            InputError: it has fewer.
        """
        self._writing()
        found = self._lines()
        if len(found) < lines:
            raise InputError(
                f"'{self.path / METRICS}' has {len(found)} whole lines and its checkpoint was taken after {lines}: "
                "put the lines back, or start again with another --out"
            )
        write_atomic(self.path / METRICS, b"".join(found[:lines]))

    def save(self, state: dict[str, Any]) -> None:
        """Write ``state`` as ``checkpoint.pt`` and keep the one before as ``checkpoint.prev.pt``.

        Killed at any moment, at least one of the two is whole: the new state is complete on the disk before the newest
        becomes the previous one (only if it is whole itself) and the new one takes its place.

        Args:
            state: tensors and plain Python values. Put ``len(run.metrics())`` into it for `cut_metrics`.

        Raises:
            TypeError: ``state`` holds an object that `load` would refuse. Nothing is written.
            OSError: the disk refused; `load` still gives the last state.
        """
        self._writing()
        buffer = io.BytesIO()
        torch.save(state, buffer)
        _refuse_objects(buffer)
        body = buffer.getbuffer()
        newest = self.path / NEWEST
        with _staged(newest, body, _seal(body)) as ready:
            if _whole(newest):
                os.replace(newest, self.path / PREVIOUS)
            os.replace(ready, newest)

    def load(self) -> dict[str, Any] | None:
        """The newest readable state, on the CPU, or ``None`` if none was saved yet.

        A damaged newest checkpoint gives one warning and the previous state. Pickled objects are never run.

        Raises:
            InputError: there are checkpoints and none is readable.
        """
        damage: list[str] = []
        for path in (self.path / NEWEST, self.path / PREVIOUS):
            try:
                state = _unpack(path)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                damage.append(f"'{path}' ({error})")
                continue
            if damage:
                warnings.warn(f"damaged checkpoint {damage[0]}: going on from '{path}'", stacklevel=2)
            return state
        if damage:
            raise InputError(f"no readable checkpoint: {', '.join(damage)}: start again with another --out")
        return None

    def _writing(self) -> None:
        if self._lock is None:
            raise RuntimeError(f"run '{self.path}' is open for reading only: use Run.open(path)")

    def _lines(self) -> list[bytes]:
        """The lines of ``metrics.jsonl``, each with its end; a last one without is left out."""
        try:
            lines = (self.path / METRICS).read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        return [line for line in lines if line.endswith(b"\n")]

    def _record(self, index: int, line: bytes) -> dict[str, Any]:
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict):
                return record
        raise InputError(f"'{self.path / METRICS}' line {index + 1} is damaged: {line[:40]!r}; remove the line")


@dataclass
class Stop:
    """Whether a signal asked the process to stop: ``requested`` is its number, or ``None``."""

    requested: int | None = None


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Inside, SIGINT (Ctrl-C) and SIGTERM only set ``requested``, so that a loop can end its step, save and leave.

    A second SIGINT raises `KeyboardInterrupt` at once. The handlers from before are put back at the end. Outside the
    main thread, where Python allows no handlers, nothing changes and ``requested`` stays ``None``.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    interrupts = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts > 1:
            raise KeyboardInterrupt
        stop.requested = stop.requested or number

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def _staged(path: Path, *parts: bytes | memoryview) -> Iterator[Path]:
    """A complete, synced temporary file next to ``path``, for the body to move into place; gone afterwards."""
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


def _sync_folder(path: Path) -> None:
    """Put the folder's renames on the disk, where the system can."""
    with suppress(OSError):
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _refuse_used(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"run folder '{path}' is a file: give another --out")
    if (path / CONFIG).exists():
        raise InputError(f"run folder '{path}' already holds a run: give another --out, or go on with it by --resume")
    other = sorted({p.name for p in path.glob("*")} - {LOCK} - {p.name for p in path.glob(LEFTOVER)})
    if other:
        raise InputError(f"run folder '{path}' is not empty (it holds '{other[0]}'): give another --out")


def _lock(path: Path) -> FileLock:
    lock = FileLock(path / LOCK, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise InputError(
            f"run folder '{path}' is in use by another process: wait until it ends, or give another --out"
        ) from None
    except OSError as error:
        raise InputError(f"cannot write in run folder '{path}' ({error.strerror}): give another --out") from error
    return lock


def _read_config(path: Path) -> dict[str, Any]:
    file = path / CONFIG
    try:
        config = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"'{path}' is not a run folder (it has no {CONFIG}): check the path") from None
    except (OSError, ValueError) as error:
        raise InputError(f"'{file}' is damaged or cannot be read ({error}): start again with another --out") from error
    if not isinstance(config, dict):
        raise InputError(f"'{file}' is damaged (it holds no JSON object): start again with another --out")
    return config


def _cut_torn_line(file: io.BufferedRandom) -> None:
    """Let the file end in a whole line, if a kill cut its last one short."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _seal(body: bytes | memoryview) -> bytes:
    return f"\nmsgdas-sha256:{hashlib.sha256(body).hexdigest()}\n".encode()


_SEAL_SIZE = len(_seal(b""))


def _sealed(data: bytes) -> bool:
    return data[-_SEAL_SIZE:] == _seal(memoryview(data)[:-_SEAL_SIZE])


def _whole(path: Path) -> bool:
    try:
        return _sealed(path.read_bytes())
    except OSError:
        return False


def _unpack(path: Path) -> dict[str, Any]:
    """The state in a checkpoint; `ValueError` if it was altered or holds anything but tensors and plain values."""
    data = path.read_bytes()
    if not _sealed(data):
        raise ValueError("truncated or altered")
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError("it holds more than tensors and plain values, which is never loaded") from error
    except RuntimeError as error:
        raise ValueError(str(error).partition("\n")[0]) from error
    if not isinstance(state, dict):
        raise ValueError("it holds no state")
    return state


def _refuse_objects(buffer: io.BytesIO) -> None:
    buffer.seek(0)
    objects = get_unsafe_globals_in_checkpoint(buffer)
    if objects:
        raise TypeError(f"a checkpoint holds tensors and plain values only, and was given {', '.join(objects)}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
