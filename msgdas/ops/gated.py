"""Gates with a gradient of their own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch.amp.autocast_mode import is_autocast_available

__all__ = ["autocast_again"]


def autocast_again(device_type: str) -> Callable[[], AbstractContextManager[None]]:
    """What opens the autocast that is in force now, for work to be done later."""
    if not is_autocast_available(device_type):
        return nullcontext
    dtype, enabled = torch.get_autocast_dtype(device_type), torch.is_autocast_enabled(device_type)
    return partial(torch.autocast, device_type, dtype, enabled)
