"""Mixed precision: the arithmetic of a network's forward and backward, while weights and alphas stay float32."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from msgdas.errors import InputError

__all__ = ["PRECISIONS", "autocast"]

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Inside, forwards on ``device`` run in ``precision`` where that is safe (`torch.autocast`); ``"float32"`` changes
    nothing.

    Raises:
        InputError: the precision is not known.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r}: use {' or '.join(PRECISIONS)}")
    dtype = PRECISIONS[precision]
    # a forward uses each weight once: a cache of their casts has nothing to win
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None, cache_enabled=False)
