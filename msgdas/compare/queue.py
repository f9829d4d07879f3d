"""A resumable queue of searches, each in a process and a run folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock, Timeout

from msgdas.compare import peak_memory
from msgdas.compare.specs import Spec
from msgdas.errors import InputError
from msgdas.runs import stop_on_signals, write_json
from msgdas.runs.folder import CONFIG
from msgdas.runs.resumable import Stopped

__all__ = ["QueueStopped", "Task", "base_memory", "run_queue"]

POLL = 0.05  # seconds
BASE = "base.json"  # memory of a process that only imports everything
MIB = 2**20


class QueueStopped(Stopped):
    """A signal stopped the queue; its searches are saved. The same command resumes it."""


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
        QueueStopped: SIGINT or SIGTERM arrived; running searches are saved.
    """
    with _locked(out), stop_on_signals() as stop, TemporaryDirectory() as scratch:
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
                while waiting and len(running) < jobs and not stop.requested:
                    running.append(_Child(waiting.popleft(), Path(scratch)))
                if stop.requested and not told:
                    told = True
                    for child in running:
                        child.send(stop.requested)
                for child in [child for child in running if child.ended()]:
                    running.remove(child)
                    child.note_memory()
                    failure = child.failure()
                    if child.task.done or not stop.requested:
                        on_end(child.task, failure)
                    if failure and not stop.requested:
                        failed.append((child.task, failure))
                time.sleep(POLL)
        finally:
            for child in running:
                child.send(signal.SIGKILL)
                child.process.wait()
    if stop.requested:
        raise QueueStopped(stop.requested)
    return failed


def base_memory(out: Path) -> int | None:
    """MiB of a process that only imports everything, measured when the queue in ``out`` began."""
    try:
        return int(json.loads((out / BASE).read_text(encoding="utf-8"))["memory_mib"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _note_base(file: Path) -> None:
    if base_memory(file.parent) is None:
        with TemporaryDirectory() as scratch:
            memory = Path(scratch) / "memory"
            command = _with_peak_memory(memory, [sys.executable, "-m", "msgdas", "spaces"])
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
            write_json(file, {"memory_mib": round(int(memory.read_text()) / MIB)})


def _with_peak_memory(memory: Path, command: list[str]) -> list[str]:
    """``command``, wrapped so that it writes its peak memory in bytes to the file ``memory``."""
    return [sys.executable, "-I", "-S", peak_memory.__file__, str(memory), *command]


class _Child:
    """A running search, in a process group of its own: Ctrl-C in the terminal reaches it only through the queue."""

    def __init__(self, task: Task, scratch: Path) -> None:
        self.task = task
        name = f"{task.spec.folder}-{task.seed}"
        self._memory, self._log = scratch / f"{name}.memory", scratch / f"{name}.log"
        arguments = ["--resume"] if task.begun else task.arguments
        search = [sys.executable, "-m", "msgdas", "search", *arguments, f"--out={task.folder}"]
        task.folder.parent.mkdir(parents=True, exist_ok=True)
        write_json(task.notes, (task.noted() if task.begun else {}) | {"asked": dict(task.asked)})
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                _with_peak_memory(self._memory, search),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def ended(self) -> bool:
        return self.process.poll() is not None

    def note_memory(self) -> None:
        """Note the highest peak memory of all parts of the search."""
        with suppress(OSError, ValueError):
            peak = int(self._memory.read_text()) / MIB
            noted = self.task.noted()
            write_json(self.task.notes, noted | {"peak_memory_mib": round(max(peak, noted.get("peak_memory_mib", 0)))})

    def failure(self) -> str | None:
        """Why the search failed, in one line; ``None`` if it did not."""
        code = self.process.returncode
        if code == 0 and self.task.done:
            return None
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        ended = f"ended by signal {code - 128}" if code > 128 else f"ended with code {code}"
        return (lines[-1] if lines else ended).removeprefix("msgdas: error: ")


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".lock", blocking=False):
            yield
    except Timeout:
        raise InputError(f"another queue works in '{out}': wait until it ends, or give another --out") from None
    except OSError as error:
        raise InputError(f"cannot write in '{out}' ({error.strerror}): give another --out") from error
