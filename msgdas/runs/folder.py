"""The run folder of a search or a training, and everything that reads or writes it.

==================== ==============================================================================================
``config.json``      all settings, written once
``metrics.jsonl``    one JSON record per line, append-only (truncated when a run is resumed)
``checkpoint.pt``    the newest state; ``checkpoint.prev.pt`` the one before it
``.lock``            held by the one process that writes
==================== ==============================================================================================

Every file appears complete or not at all, so a run may be killed at any moment and resumed.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from msgdas.errors import InputError, shown
from msgdas.runs.checkpoint import is_intact, pack, unpack
from msgdas.runs.files import append, is_leftover, refuse_irregular, remove_leftovers, staged, write_atomic, write_json
from msgdas.runs.json_text import parse_json, read_json

__all__ = ["CONFIG", "LOCK", "Run"]

CONFIG, METRICS, LOCK = "config.json", "metrics.jsonl", ".lock"
NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint.prev.pt"
CHECKPOINT_SECONDS = 600.0


class Run:
    """A run folder, opened by `create` (new) or `open` (existing); a context manager.

    Attributes:
        path: the folder.
        config: the settings in ``config.json``, as JSON returns them (tuples become lists).
        checkpoint_seconds: longest time between two checkpoints; one is also written at the end of every epoch.
    """

    def __init__(
        self, path: Path, config: dict[str, Any], lock: FileLock | None, checkpoint_seconds: float = CHECKPOINT_SECONDS
    ) -> None:
        self.path = path
        self.config = config
        self.checkpoint_seconds = checkpoint_seconds
        self._lock = lock

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        config: dict[str, Any],
        *,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> Run:
        """Create the folder, lock it and write ``config.json``.

        Raises:
            InputError: the folder holds a run or any other file, is in use, or cannot be written.
            ValueError, TypeError: ``config`` cannot be expressed in JSON. Nothing is created.
        """
        path = Path(path)
        config = json.loads(json.dumps(config, allow_nan=False))
        _refuse_used(path)
        _make(path)
        lock = _lock(path)
        try:
            _refuse_used(path)  # again: another process may have been faster
            remove_leftovers(path)
            write_json(path / CONFIG, config)  # with it the folder is a run
            write_atomic(path / METRICS, b"")
        except BaseException:
            lock.release()
            raise
        return cls(path, config, lock, checkpoint_seconds)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, lock: bool = True, checkpoint_seconds: float = CHECKPOINT_SECONDS
    ) -> Run:
        """Open an existing run.

        Args:
            lock: lock the folder, to write. ``False``: read only, which also works while another process writes.

        Raises:
            InputError: ``path`` is not a run folder, its ``config.json`` is damaged, or another process writes there.
        """
        path = Path(path)
        config = _read_config(path)
        if not lock:
            return cls(path, config, None)
        held = _lock(path)
        remove_leftovers(path)
        return cls(path, config, held, checkpoint_seconds)

    def close(self) -> None:
        """Release the lock. Reading still works, writing does not."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def section(self, name: str) -> dict[str, Any]:
        """The object under ``name`` in ``config.json``; empty if there is none.

        Raises:
            InputError: it is not an object.
        """
        found = self.config.get(name)
        if not isinstance(found, dict | None):
            raise InputError(
                f"'{self.path / CONFIG}' is damaged ({name} is {shown(found)}): start again with another --out"
            )
        return found or {}

    def log(self, record: dict[str, Any]) -> None:
        """Append one record to ``metrics.jsonl``, synced to disk. NaN and infinities become ``null``."""
        self._require_lock()
        line = json.dumps(_finite(record), allow_nan=False) + "\n"
        append(self.path / METRICS, line.encode())

    def metrics(self) -> list[dict[str, Any]]:
        """All records so far. An incomplete last line, from a killed process, is ignored.

        Raises:
            InputError: any other line is damaged.
        """
        return [self._record(i, line) for i, line in enumerate(self._lines())]

    def cut_metrics(self, lines: int) -> None:
        """Truncate ``metrics.jsonl`` to its first ``lines`` records, atomically.

        Raises:
            InputError: the file has fewer.
        """
        self._require_lock()
        logged = self._lines()
        if len(logged) < lines:
            raise InputError(
                f"'{self.path / METRICS}' has {len(logged)} whole lines and its checkpoint was taken after {lines}: "
                "put the lines back, or start again with another --out"
            )
        write_atomic(self.path / METRICS, b"".join(logged[:lines]))

    def save(self, state: dict[str, Any]) -> None:
        """Write ``state`` as ``checkpoint.pt`` and keep the one before as ``checkpoint.prev.pt``.

        A kill at any moment leaves at least one of the two intact: the new state is complete on disk before the newest
        becomes the previous one (only if it is intact) and the new one takes its place.

        Args:
            state: tensors and plain Python values. Include the number of records logged, for `cut_metrics`.

        Raises:
            TypeError: ``state`` holds an object that `load` would refuse. Nothing is written.
            OSError: the write failed; `load` still returns the last state.
        """
        self._require_lock()
        newest = self.path / NEWEST
        refuse_irregular(self.path / PREVIOUS)
        with staged(newest, *pack(state)) as ready:
            if is_intact(newest):
                os.replace(newest, self.path / PREVIOUS)
            os.replace(ready, newest)

    def load(self) -> dict[str, Any] | None:
        """The newest readable state, on the CPU, or ``None`` if none was saved yet.

        If the newest checkpoint is damaged, warn once and return the previous one. Pickled objects are never run.

        Raises:
            InputError: there are checkpoints, but none is readable.
        """
        damage: list[str] = []
        for path in (self.path / NEWEST, self.path / PREVIOUS):
            try:
                state = unpack(path)
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

    @property
    def has_checkpoint(self) -> bool:
        """Whether a state was saved."""
        return any((self.path / name).exists() for name in (NEWEST, PREVIOUS))

    def _require_lock(self) -> None:
        if self._lock is None:
            raise RuntimeError(f"run '{self.path}' is open for reading only: use Run.open(path)")

    def _lines(self) -> list[bytes]:
        """The lines of ``metrics.jsonl`` with their line ends; an incomplete last line is left out."""
        try:
            lines = (self.path / METRICS).read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InputError(f"'{self.path / METRICS}' cannot be read ({error.strerror}): give another --out") from None
        return [line for line in lines if line.endswith(b"\n")]

    def _record(self, index: int, line: bytes) -> dict[str, Any]:
        with suppress(ValueError):
            record = parse_json(line)
            if isinstance(record, dict):
                return record
        raise InputError(f"'{self.path / METRICS}' line {index + 1} is damaged: {line[:40]!r}; remove the line")


def _refuse_used(path: Path) -> None:
    if os.path.exists(path) and not os.path.isdir(path):
        raise InputError(f"run folder '{path}' is a file or a device: give another --out")
    if os.path.lexists(path / CONFIG):
        raise InputError(f"run folder '{path}' already holds a run: give another --out, or go on with it by --resume")
    try:
        found = list(path.iterdir()) if os.path.isdir(path) else []
    except OSError as error:
        raise InputError(f"cannot read run folder '{path}' ({error.strerror}): give another --out") from error
    other = sorted(p.name for p in found if p.name != LOCK and not is_leftover(p))
    if other:
        raise InputError(f"run folder '{path}' is not empty (it holds '{other[0]}'): give another --out")


def _make(path: Path) -> None:
    """Make the folder and those above it; none of them if one cannot be made."""
    made = []
    try:
        for folder in (*reversed(path.parents), path):
            if not os.path.isdir(folder):
                folder.mkdir(exist_ok=True)
                made.append(folder)
    except OSError as error:
        for folder in reversed(made):
            with suppress(OSError):  # another process uses it
                folder.rmdir()
        raise InputError(f"cannot make run folder '{path}' ({error.strerror}): give another --out") from error


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
        config = read_json(file)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"'{path}' is not a run folder (it has no {CONFIG}): check the path") from None
    except (OSError, ValueError) as error:
        raise InputError(f"'{file}' is damaged or cannot be read ({error}): start again with another --out") from error
    if not isinstance(config, dict):
        raise InputError(f"'{file}' is damaged (it holds no JSON object): start again with another --out")
    return config


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
