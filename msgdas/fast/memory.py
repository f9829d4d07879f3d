"""Keep freed memory in the process."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# from glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1
_LARGEST_BLOCKS = 1 << 30, 1 << 25  # bytes; older versions accept only the second


def keep_freed_memory() -> bool:
    """Keep the memory that this process frees, for its next allocations.

    By default glibc, the C library of most Linux systems, returns the feature maps of a training step to the operating
    system, and the next step gets them back page by page, each cleared first. Keeping them makes most steps on a CPU
    3 % to 25 % faster; peak memory hardly changes. The command line calls this when it starts. In your own program,
    call it once.

    Returns:
        Whether the C library supports it: True with glibc only.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _NEVER)) and any(mallopt(_M_MMAP_THRESHOLD, b) for b in _LARGEST_BLOCKS)
