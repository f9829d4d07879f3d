"""A resumable queue of searches, each in a process and a run folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from filelock import FileLock, Timeout

from msgdas.compare import peak_memory
from msgdas.compare.specs import Spec
from msgdas.errors import InputError
from msgdas.runs import Stopped, stop_on_signals, write_json
from msgdas.runs.files import remove_leftovers
from msgdas.runs.folder import CONFIG, LOCK

__all__ = ["Task", "base_memory", "run_queue"]

POLL = 0.05  # seconds
BASE = "base.json"  # memory of a process that only imports everything
MIB = 2**20


@dataclass
class Task:
    """One search of the queue.

    Attributes:
        folder: the run folder; the queue's notes about it are in ``FOLDER.json`` beside it.
        arguments: of ``msgdas search``, without ``--out``.
        asked: the settings that the arguments give, to compare with those the run began with.
    """

    spec: Spec
    seed: int
    folder: Path
    arguments: Sequence[str]
    asked: Mapping[str, Any] = field(default_factory=dict)
    warned: bool = field(default=False, compare=False)

    @property
    def in_use(self) -> bool:
        """Whether a process works in the run folder."""
        if not self.begun:
            return False
        try:
            FileLock(self.folder / LOCK).acquire(blocking=False).lock.release()
        except Timeout:
            return True
        except OSError:  # the search itself says what is wrong
            return False
        return False

    @property
    def done(self) -> bool:
        return (self.folder / "genotype.json").exists()

    @property
    def begun(self) -> bool:
        return (self.folder / CONFIG).exists()

    @property
    def notes(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.json")

    def noted(self) -> dict[str, Any]:
        """The notes: ``asked``, and ``peak_memory_mib`` once a part of the search has run."""
        try:
            notes = json.loads(self.notes.read_text(encoding="utf-8"))
            return notes if isinstance(notes, dict) else {}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise InputError(f"'{self.notes}' is damaged ({error}): give another --out") from None

    def check(self) -> None:
        """Raise if the run folder began with other settings.

        Raises:
            InputError: it did, or is not of this queue.
        """
        if not self.begun:
            return
        before = self.noted().get("asked")
        if not isinstance(before, dict):
            raise InputError(f"run '{self.folder}' is not of this queue: give another --out")
        for name in {**before, **self.asked}:
            if before.get(name) != self.asked.get(name):
                raise InputError(
                    f"run '{self.folder}' began with {name.replace('_', '-')} {before.get(name)}, not "
                    f"{self.asked.get(name)}: give the same, or another --out"
                )


def run_queue(
    out: Path, tasks: Sequence[Task], *, jobs: int = 1, on_end: Callable[[Task, str | None], None] = lambda *_: None
) -> list[tuple[Task, str]]:
    """Run the searches that are not done, in order.

    Args:
        out: the folder of all run folders; only one queue at a time works there.
        jobs: number of searches at a time.
        on_end: gets each finished task, including those done before, and the reason if it failed, else ``None``.

    Returns:
        The tasks that failed, each with its last line of output.

    Raises:
        InputError: a run began with other settings, or another queue works in ``out``. Nothing was started.
        Stopped: SIGINT or SIGTERM arrived; running searches are saved.
    """
    with _locked(out, tasks), stop_on_signals() as stop:
        for task in tasks:
            task.check()
        if not all(task.done for task in tasks):
            _note_base(out / BASE)
        for task in (done := [task for task in tasks if task.done]):
            on_end(task, None)
        waiting = deque(task for task in tasks if task not in done)
        running: list[_Child] = []
        failed: list[tuple[Task, str]] = []
        told = False
        try:
            while running or (waiting and not stop.requested):
                while len(running) < jobs and not stop.requested and (free := _next(waiting, bool(running))):
                    if free.done:  # by a search of an earlier queue, which was waited for
                        on_end(free, None)
                    else:
                        running.append(_Child(free))
                if stop.requested and not told:
                    told = True
                    for child in running:
                        child.send(stop.requested)
                for child in [child for child in running if child.ended()]:
                    running.remove(child)
                    child.note_memory()
                    failure = child.failure()
                    child.close()
                    if child.task.done or not stop.requested:
                        on_end(child.task, failure)
                    if failure and not stop.requested:
                        failed.append((child.task, failure))
                time.sleep(POLL)
        finally:
            for child in running:
                child.send(signal.SIGKILL)
                child.close()
    if stop.requested:
        raise Stopped(stop.requested)
    return failed


def _next(waiting: deque[Task], others: bool) -> Task | None:
    """Take the first task that no process works on; warn once if there is nothing to do but wait for one that does.

    Such a process is a search of an earlier queue that was killed: it saves after its step and ends.
    """
    for task in list(waiting):
        if not task.in_use:
            waiting.remove(task)
            return task
    if waiting and not others and not waiting[0].warned:
        waiting[0].warned = True
        warnings.warn(f"run '{waiting[0].folder}' is in use by another process: waiting for its end", stacklevel=3)
    return None


def base_memory(out: Path) -> int | None:
    """MiB of a process that only imports everything, measured when the queue in ``out`` began."""
    try:
        return int(json.loads((out / BASE).read_text(encoding="utf-8"))["memory_mib"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _note_base(file: Path) -> None:
    if base_memory(file.parent) is None:
        with _start([sys.executable, "-m", "msgdas", "spaces"], subprocess.DEVNULL) as process:
            process.wait()
            if (memory := _measured(process)) is not None:
                write_json(file, {"memory_mib": round(memory)})


def _start(command: list[str], errors: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """Start ``command`` in a session of its own. It stops when this process ends, however that comes about: the pipe
    that is its standard input closes."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", peak_memory.__file__, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        start_new_session=True,
    )


def _measured(process: subprocess.Popen[bytes]) -> float | None:
    """Peak memory in MiB of a command that has ended."""
    text = process.stdout.read() if process.stdout else b""
    return int(text) / MIB if text.isdigit() else None


class _Child:
    """A running search, in a process group of its own: Ctrl-C in the terminal reaches it only through the queue."""

    def __init__(self, task: Task) -> None:
        self.task = task
        arguments = ["--resume"] if task.begun else task.arguments
        task.folder.parent.mkdir(parents=True, exist_ok=True)
        write_json(task.notes, (task.noted() if task.begun else {}) | {"asked": dict(task.asked)})
        self._log = TemporaryFile()  # noqa: SIM115 - closed by `close`
        search = [sys.executable, "-m", "msgdas", "search", *arguments, f"--out={task.folder}"]
        self.process = _start(search, self._log)

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def ended(self) -> bool:
        return self.process.poll() is not None

    def note_memory(self) -> None:
        """Note the highest peak memory of all parts of the search."""
        if (peak := _measured(self.process)) is not None:
            noted = self.task.noted()
            write_json(self.task.notes, noted | {"peak_memory_mib": round(max(peak, noted.get("peak_memory_mib", 0)))})

    def failure(self) -> str | None:
        """Why the search failed, in one line; ``None`` if it did not."""
        code = self.process.returncode
        if code == 0 and self.task.done:
            return None
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        ended = f"ended by signal {code - 128}" if code > 128 else f"ended with code {code}"
        return (lines[-1] if lines else ended).removeprefix("msgdas: error: ")

    def close(self) -> None:
        """Wait for its end, and close its files."""
        self.process.__exit__(None, None, None)
        self._log.close()


@contextmanager
def _locked(out: Path, tasks: Sequence[Task]) -> Iterator[None]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / LOCK).acquire(blocking=False)
    except Timeout:
        raise InputError(f"another queue works in '{out}': wait until it ends, or give another --out") from None
    except OSError as error:
        raise InputError(f"cannot write in '{out}' ({error.strerror}): give another --out") from error
    with lock:
        for folder in {out, *(task.folder.parent for task in tasks)}:
            remove_leftovers(folder)
        yield
