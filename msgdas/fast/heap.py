"""The heap of the process."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1
_LARGEST_BLOCKS = 1 << 30, 1 << 25  # bytes; older versions take the second only


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for what it allocates next.

    The C library of most Linux systems gives the maps of a training step back when they are freed, and the next step
    gets them again page by page, each cleared by the system. Kept, most steps on a CPU take 0.75 to 0.97 of the time;
    the peak is the same but for the smallest networks, with some MiB more (`benchmarks/heap.py`). The command line
    calls this when it starts; a program of your own calls it once.

    Returns:
        Whether the C library can do so: glibc.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _NEVER)) and any(mallopt(_M_MMAP_THRESHOLD, b) for b in _LARGEST_BLOCKS)
