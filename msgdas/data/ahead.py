"""Items made in a thread beside what is done with them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

__all__ = ["ahead", "cpus"]

Item = TypeVar("Item")


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same, of which the next is made while the caller works on this one, by one thread that ends with the
    iterator; an error comes where it would have come."""
    with ThreadPoolExecutor(1, "ahead", initializer=_alone) as thread:
        end = object()
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]  # mypy does not see that it is not the end


def cpus() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _alone() -> None:
    """Keep PyTorch's operations of this thread in it. A team of threads of its own would be one too many for the CPUs:
    OpenMP would then put all to sleep at the end of every operation, the caller's too, and a step takes 1.8 times as
    long."""
    torch.get_num_threads()  # which sets the number of a new thread, so that it is not set later
    threadpool_limits(1, user_api="openmp")
