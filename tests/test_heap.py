"""Freed memory that the process keeps."""

import subprocess
import sys

import pytest

from msgdas.heap import keep_freed_memory

STEPS = """
import resource, sys, torch
if {keep}:
    from msgdas.heap import keep_freed_memory
    keep_freed_memory()
def step():
    torch.ones(10 << 20)  # 40 MiB, above what glibc ever keeps by itself
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep):
    """Pages that the system had to hand out in five steps of 40 MiB, after three."""
    code = [sys.executable, "-c", STEPS.format(keep=keep)]
    return int(subprocess.run(code, check=True, capture_output=True, text=True).stdout)


def test_steps_get_the_memory_of_the_steps_before():
    if not keep_freed_memory():
        pytest.skip("the C library is not glibc")
    assert faults(keep=False) > 10_000
    assert faults(keep=True) < 500


def test_elsewhere_it_does_nothing(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", None)
    assert keep_freed_memory() is False
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())  # as with musl
    assert keep_freed_memory() is False
