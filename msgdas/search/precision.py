"""Mixed precision: the network's forward and backward pass in 16 bits, while weights and alphas stay float32."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch.amp.autocast_mode import is_autocast_available

from msgdas.errors import InputError

__all__ = ["PRECISIONS", "LossScale", "autocast", "check_precision"]

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Run forward passes on ``device`` in ``precision`` where that is safe (`torch.autocast`); ``"float32"`` changes
    nothing, and switches off an autocast of the caller's.

    Raises:
        InputError: the precision is not known.
    """
    check_precision(precision)
    dtype = PRECISIONS[precision]
    if dtype is None and not (is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)):
        return nullcontext()
    # A forward pass uses each weight once, so caching the casts would only cost memory.
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None, cache_enabled=False)


@dataclass
class LossScale:
    """Dynamic loss scaling for float16, whose smallest number is 6e-8 (Micikevicius et al. 2018, arXiv:1710.03740).

    Losses are multiplied by ``value`` before the backward pass and gradients divided by it afterwards. When gradients
    overflow, the step is skipped and the scale halved; after 2,000 steps without overflow it is doubled. The other
    precisions have the range of float32 and keep the scale 1.

    Attributes:
        value: the scale.
        good: steps without overflow since it last changed.
    """

    value: float = 1.0
    good: int = 0

    PATIENCE = 2000

    @classmethod
    def of(cls, precision: str) -> LossScale:
        """The initial scale."""
        return cls(2.0**16 if precision == "float16" else 1.0)

    def take(self, norms: Iterable[float]) -> bool:
        """Whether gradients with these norms are finite, so that the step can be taken; adjusts the scale."""
        if self.value == 1:
            return True
        finite = all(map(math.isfinite, norms))
        self.good = self.good + 1 if finite else 0
        if not finite or self.good == self.PATIENCE:
            self.value, self.good = self.value * (2 if finite else 0.5), 0
        return finite


def check_precision(precision: str) -> None:
    """
    Raises:
        InputError: the precision is not known.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r}: use {', '.join(PRECISIONS)}")
