"""Freed memory that the process keeps."""

import subprocess
import sys

import pytest

from msgdas.fast import heap

STEPS = """
import resource, runpy
if {keep}:
    runpy.run_path({file!r})["keep_freed_memory"]()
def step():
    b"x" * (40 << 20)  # above what glibc ever keeps by itself
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep):
    """Pages that the system had to hand out in five steps of 40 MiB, after three."""
    code = [sys.executable, "-c", STEPS.format(keep=keep, file=heap.__file__)]
    return int(subprocess.run(code, check=True, capture_output=True, text=True).stdout)


def test_steps_get_the_memory_of_the_steps_before():
    if not heap.keep_freed_memory():
        pytest.skip("the C library is not glibc")
    assert faults(keep=True) < faults(keep=False) / 10  # which are fewer where pages are huge


def test_elsewhere_it_does_nothing(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", None)
    assert heap.keep_freed_memory() is False
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())  # as with musl
    assert heap.keep_freed_memory() is False
