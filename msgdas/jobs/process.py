"""What a command does around its work: set up the process, and say how to go on if the work ends early."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msgdas.errors import InputError
from msgdas.fast import use_native
from msgdas.jobs.config import compare_begun, keep_moved_data
from msgdas.jobs.settings import Machine
from msgdas.runs import Run, Stopped, told
from msgdas.runs.folder import CONFIG

__all__ = ["prepare", "run_in"]

AGAIN = "the same command with --resume"


def prepare(settings: Machine) -> None:
    """Seed the generators of Python and NumPy, set the number of threads, switch the compiled kernels on or off."""
    random.seed(settings.seed)
    np.random.seed(settings.seed % 2**32)  # noqa: NPY002 - other people's code draws from it
    if settings.threads:
        torch.set_num_threads(settings.threads)
    use_native(settings.native)


@contextmanager
def run_in(out: Path, config: dict[str, Any], *, resume: bool) -> Iterator[Run]:
    """The run in ``out``: opened to go on with, or created with ``config``.

    Raises:
        InputError: it cannot be opened or created; or the machine refuses something inside, such as a full disk: the
            run is as its last checkpoint left it.
        Stopped: a signal arrived inside; it says how to go on.
    """
    try:
        with Run.open(out) if resume else Run.create(out, config) as run:
            if resume:
                compare_begun(run, config)
                keep_moved_data(run, config)
            yield run
    except Stopped as stopped:
        stopped.again = AGAIN if (out / CONFIG).exists() else None
        raise
    except OSError as error:
        way_out = f"{AGAIN} goes on" if (out / CONFIG).exists() else "give the same command again"
        raise InputError(f"{told(error)}: mend that, then {way_out}") from error
