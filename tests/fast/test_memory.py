"""Memory that the process keeps between steps."""

import subprocess
import sys

import pytest

from msgdas.fast import memory

STEPS = """
import resource, runpy
if {keep}:
    runpy.run_path({file!r})["keep_freed_memory"]()
def step():
    b"x" * (40 << 20)  # more than glibc keeps by itself
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep):
    """Page faults of five steps of 40 MiB, after three to warm up."""
    code = [sys.executable, "-c", STEPS.format(keep=keep, file=memory.__file__)]
    return int(subprocess.run(code, check=True, capture_output=True, text=True).stdout)


def test_steps_reuse_the_memory_of_the_steps_before():
    if not memory.keep_freed_memory():
        pytest.skip("the C library is not glibc")
    assert faults(keep=True) < faults(keep=False) / 10  # huge pages make fewer faults of both


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", None)
    assert memory.keep_freed_memory() is False
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())  # as with musl
    assert memory.keep_freed_memory() is False
