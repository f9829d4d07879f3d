"""The queue of searches and the machine: killed, it leaves nothing that runs; what still runs is waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

import pytest
from filelock import FileLock

from msgdas.compare import queue
from msgdas.compare.queue import Task, run_queue
from msgdas.compare.specs import Spec
from msgdas.runs import Run, write_json

SLEEPER = "import os, time; print(os.getpid(), file=open({file!r}, 'w'), flush=True); time.sleep(600)"
STARTER = "import sys; from msgdas.compare.queue import _start; _start([sys.executable, '-c', sys.argv[1]], 2).wait()"


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def runs(process):
    """Whether it runs; not one that has ended and that nobody has waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_a_killed_queue_leaves_no_search_that_runs(tmp_path):
    file = tmp_path / "pid"
    starter = subprocess.Popen([sys.executable, "-c", STARTER, SLEEPER.format(file=str(file))])
    wait_until(lambda: file.exists() and file.read_text().endswith("\n"))
    search = int(file.read_text())
    assert runs(search)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    wait_until(lambda: not runs(search))


def test_a_command_that_ends_tells_its_memory_and_its_code():
    process = queue._start([sys.executable, "-c", "import sys; sys.exit(7)"], subprocess.DEVNULL)
    with process:
        assert process.wait(60) == 7
        assert 1 < queue._measured(process) < 1000


def task(folder, seed=0):
    return Task(Spec("random", "random", ()), seed, folder / f"seed-{seed}", [], {})


def begun(one, done=False):
    Run.create(one.folder, {}).close()
    write_json(one.notes, {"asked": {}})
    if done:
        write_json(one.folder / "genotype.json", {})
    return one


def test_a_search_in_use_is_waited_for_while_others_start(tmp_path):
    used, free = begun(task(tmp_path, 0)), task(tmp_path, 1)
    waiting = deque([used, free])
    with FileLock(used.folder / ".lock"):
        assert queue._next(waiting, False) is free
        assert queue._next(waiting, True) is None  # others run: nothing to say yet
        with pytest.warns(UserWarning, match=r"seed-0' is in use by another process: waiting for its end"):
            assert queue._next(waiting, False) is None
        assert queue._next(waiting, False) is None  # not said again
    assert queue._next(waiting, False) is used
    assert not waiting


@pytest.mark.filterwarnings("ignore:run .* is in use")
def test_what_an_orphan_finishes_is_not_searched_again(tmp_path, monkeypatch):
    one, ended = begun(task(tmp_path)), []
    write_json(tmp_path / "base.json", {"memory_mib": 1})
    monkeypatch.setattr(queue, "_Child", None)
    lock = FileLock(one.folder / ".lock", thread_local=False)
    lock.acquire()

    def finish():
        write_json(one.folder / "genotype.json", {})
        lock.release()

    timer = threading.Timer(0.5, finish)
    timer.start()
    assert run_queue(tmp_path, [one], on_end=lambda *end: ended.append(end)) == []
    timer.join()
    assert ended == [(one, None)]


def test_what_a_killed_queue_was_writing_is_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    one = begun(task(tmp_path / "random"), done=True)
    left = [folder / f".summary.md.{dead.pid}-{'0' * 32}.tmp" for folder in (tmp_path, one.folder.parent)]
    for file in left:
        file.touch()
    run_queue(tmp_path, [one])
    assert not any(map(os.path.exists, left))
