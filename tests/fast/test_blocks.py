"""Tensors in blocks of memory that any later tensor of the size fits."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from msgdas.fast import use_native
from msgdas.fast.heap import keep_freed_memory

pytestmark = [
    pytest.mark.usefixtures("kernels"),
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere tensors lie where PyTorch puts them"),
]

# of 8 times 16 maps, how many lie where one of the size was freed, between others that live
AGAIN = """
import torch
from msgdas.fast import keep_freed_memory, use_native
keep_freed_memory()
use_native()
live, found = [], 0
for size in range(1 << 16, (1 << 16) + 32, 4):  # whether glibc's blocks fit depends on their size and place
    maps = []
    for _ in range(32):
        maps.append(torch.empty(size))
        live += [torch.empty(n) for n in (1, 8, 16, 24)]
    free = {each.data_ptr() for each in maps[::2]}
    del maps[::2]
    again = [torch.empty(size) for _ in free]
    found += len(free & {each.data_ptr() for each in again})
    live += maps + again
print(found)
"""


def test_a_map_lies_where_one_of_its_size_was_freed():
    if not keep_freed_memory():
        pytest.skip("the C library is not glibc")
    found = subprocess.run([sys.executable, "-c", AGAIN], check=True, capture_output=True, text=True).stdout
    assert int(found) > 100  # in the blocks of glibc 2.36 59 to 76


@pytest.mark.parametrize("numbers", [1, 3, 1000, 2**20])
def test_tensors_are_aligned_as_pytorch_aligns_them(numbers):
    for dtype in (torch.uint8, torch.float64):
        assert torch.empty(numbers, dtype=dtype).data_ptr() % 64 == 0


def test_empty_tensors_lie_nowhere():
    assert torch.empty(0).data_ptr() == 0


def test_tensors_outlive_the_change_and_can_grow():
    ours = torch.arange(1000.0)
    use_native(False)
    theirs = torch.arange(1000.0)
    ours.resize_(3000)
    use_native(True)
    theirs.resize_(3000)
    assert torch.equal(ours[:1000], torch.arange(1000.0))
    assert torch.equal(theirs[:1000], torch.arange(1000.0))
    array = ours.numpy()
    del ours
    assert array[999] == 999.0


def test_more_than_there_is_is_pytorchs_error():
    with pytest.raises(RuntimeError, match="can't allocate memory: you tried to allocate 1125899906842624 bytes"):
        torch.empty(2**50, dtype=torch.uint8)


def test_the_profiler_sees_them():
    with torch.profiler.profile(profile_memory=True) as profile:
        held = torch.ones(2**20)
        del held
    (row,) = (row for row in profile.key_averages() if row.key == "aten::ones")
    assert row.cpu_memory_usage == 4 * 2**20
    assert sum(row.self_cpu_memory_usage for row in profile.key_averages()) == 0  # all of it is freed
