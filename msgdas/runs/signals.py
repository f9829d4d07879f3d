"""Turn SIGINT and SIGTERM into a flag that a loop reads after each step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

__all__ = ["Stop", "stop_on_signals"]


@dataclass
class Stop:
    """``requested``: number of the signal that asked the process to stop, or ``None``."""

    requested: int | None = None


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Make SIGINT (Ctrl-C) and SIGTERM only set ``requested``, so that a loop can finish its step, save and return.

    A second SIGINT raises `KeyboardInterrupt` at once. The previous handlers are restored at exit. Outside the main
    thread, where Python allows no handlers, nothing changes and ``requested`` stays ``None``.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    interrupts = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts > 1:
            raise KeyboardInterrupt
        stop.requested = stop.requested or number

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
