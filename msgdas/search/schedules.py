"""Numbers that change during a search: functions of its progress, from 0 at the first step to 1 at the last."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Cosine", "Linear", "Schedule", "at", "cosine", "linear"]

Schedule = Callable[[float], float]


@dataclass(frozen=True)
class Linear:
    """A straight line from ``start`` to ``end``."""

    start: float
    end: float

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * progress


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from ``start`` to ``end`` (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, without restarts)."""

    start: float
    end: float = 0.0

    def __call__(self, progress: float) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2


def at(value: float | Schedule, progress: float) -> float:
    """The value at ``progress`` in [0, 1]; a plain number is constant."""
    return value(progress) if callable(value) else value


def linear(start: float, end: float) -> Linear:
    """Change linearly from ``start`` to ``end``: ``linear(10.0, 0.1)(0.5) == 5.05``."""
    return Linear(start, end)


def cosine(start: float, end: float = 0.0) -> Cosine:
    """Anneal from ``start`` to ``end`` along half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5)."""
    return Cosine(start, end)
