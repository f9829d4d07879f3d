"""Mixed precision: the arithmetic of a network's forward and backward, while weights and alphas stay float32."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch.amp.autocast_mode import is_autocast_available

from msgdas.errors import InputError

__all__ = ["PRECISIONS", "LossScale", "autocast"]

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Inside, forwards on ``device`` run in ``precision`` where that is safe (`torch.autocast`); ``"float32"`` changes
    nothing.

    Raises:
        InputError: the precision is not known.
    """
    dtype = PRECISIONS[_known(precision)]
    if dtype is None and not (is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)):
        return nullcontext()
    # a forward uses each weight once: a cache of their casts has nothing to win
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None, cache_enabled=False)


@dataclass
class LossScale:
    """What a loss is multiplied with before its backward and the gradients are divided by afterwards: float16 holds
    nothing below 6e-8 (Micikevicius et al. 2018, arXiv:1710.03740).

    It is halved when gradients overflow, whose step is left out, and doubled after 2,000 steps in a row that did not.
    Other precisions have the range of float32 and the scale 1, which stays.
    """

    value: float = 1.0
    good: int = 0  # steps since it last changed

    PATIENCE = 2000

    @classmethod
    def of(cls, precision: str) -> LossScale:
        """Where it begins.

        Raises:
            InputError: the precision is not known.
        """
        return cls(2.0**16 if _known(precision) == "float16" else 1.0)

    def take(self, norms: Iterable[float]) -> bool:
        """Whether to step with gradients of these norms; the scale has learned from them."""
        if self.value == 1:
            return True
        finite = all(map(math.isfinite, norms))
        self.good = self.good + 1 if finite else 0
        if not finite or self.good == self.PATIENCE:
            self.value, self.good = self.value * (2 if finite else 0.5), 0
        return finite


def _known(precision: str) -> str:
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r}: use {', '.join(PRECISIONS)}")
    return precision
