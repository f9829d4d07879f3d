"""What a command sets for its whole process before it works."""

from __future__ import annotations

import random

import numpy as np
import torch

from msgdas.fast import use_native
from msgdas.jobs.settings import Machine

__all__ = ["prepare"]


def prepare(settings: Machine) -> None:
    """Seed the generators of Python and NumPy, set the number of threads, switch the compiled kernels on or off."""
    random.seed(settings.seed)
    np.random.seed(settings.seed % 2**32)  # noqa: NPY002 - other people's code draws from it
    if settings.threads:
        torch.set_num_threads(settings.threads)
    use_native(settings.native)
