"""What every test runs under: one thread, a seeded global generator, no display."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # also in the processes that tests start
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

torch.set_num_threads(1)  # tensors are tiny and pytest-xdist fills the cores; sums come out the same everywhere


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
