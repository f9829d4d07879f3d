"""What every test runs under: one thread, a seeded global generator, no display."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")  # also in the processes that tests start
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

from msgdas.fast.native import use_native

torch.set_num_threads(1)  # tensors are tiny and pytest-xdist fills the cores; sums come out the same everywhere


def pytest_collectstart() -> None:
    """What a module draws while it is imported is the same in every run too."""
    torch.manual_seed(0)


@pytest.fixture
def kernels(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Compiled kernels in use, for maps of any size; not where a test passes False."""
    use = getattr(request, "param", True)
    if use and shutil.which("cc") is None:
        pytest.skip("no C compiler: kernels cannot be compiled here")
    use_native(use, everywhere=True)
    yield use
    use_native(False)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
