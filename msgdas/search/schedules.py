"""Numbers that change over a search. Wherever a number may be a schedule, it is a function of progress in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["Schedule", "at", "cosine", "linear"]

Schedule = Callable[[float], float]


def at(value: float | Schedule, progress: float) -> float:
    """The value at ``progress`` in [0, 1]."""
    return value(progress) if callable(value) else value


def linear(start: float, end: float) -> Schedule:
    """Straight from ``start`` to ``end``."""
    return lambda progress: start + (end - start) * progress


def cosine(start: float, end: float = 0.0) -> Schedule:
    """Half a cosine from ``start`` to ``end`` (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, without restarts)."""
    return lambda progress: end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
