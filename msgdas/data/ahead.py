"""Prefetch: a thread makes the next item while the caller uses this one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

__all__ = ["ahead", "available_cpus"]

Item = TypeVar("Item")


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield ``items``, each made by a thread while the caller uses the one before.

    The thread ends with the iterator. An exception is raised at the item that caused it.
    """
    with ThreadPoolExecutor(1, "ahead", initializer=_use_one_thread) as thread:
        end = object()
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]  # mypy does not see that it is not `end`


def available_cpus() -> int:
    """Number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _use_one_thread() -> None:
    """Run PyTorch's operations of this thread in the thread itself.

    An OpenMP team of its own would oversubscribe the CPUs: all threads, the caller's too, would then sleep at the end
    of every operation, and a step would take 1.8 times as long.
    """
    torch.get_num_threads()  # sets the number for a new thread now, so that it does not override the limit later
    threadpool_limits(1, user_api="openmp")
