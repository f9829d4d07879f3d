"""Arrays of any kind as pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from msgdas.data.form import Range
from msgdas.errors import InputError

__all__ = ["as_bytes", "planes"]

MOST_CHANNELS = 64


def planes(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Images as ``(N, C, H, W)``.

    Raises:
        InputError: it has another number of dimensions, no numbers, or is empty.
    """
    if array.dtype.kind not in "buif" or array.ndim not in (3, 4) or not array.size:
        raise InputError(
            f"{name}: images of shape {array.shape} and type {array.dtype}; give numbers as (N, H, W), "
            "(N, H, W, C) or (N, C, H, W)"
        )
    if array.ndim == 3:
        return array[:, None]
    first, last = array.shape[1], array.shape[-1]
    if last in (1, 3, 4) or (last <= MOST_CHANNELS and first > MOST_CHANNELS):
        return array.transpose(0, 3, 1, 2)
    if first <= MOST_CHANNELS:
        return array
    raise InputError(f"{name}: images of shape {array.shape} have more than {MOST_CHANNELS} channels")


def as_bytes(array: npt.NDArray[Any], known: Range | None) -> npt.NDArray[np.uint8]:
    """Values as 8 bits: those of ``known`` become 0 and 255."""
    if array.dtype == np.uint8 and known is None:
        return np.ascontiguousarray(array)
    low, high = known or (0.0, 255.0)
    scaled = np.nan_to_num((array.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low)))
    return scaled.round().clip(0, 255).astype(np.uint8)
