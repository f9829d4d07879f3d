"""What SIGINT and SIGTERM do: set a flag that a loop reads after each step, or end the command where it is."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

__all__ = ["Stop", "Stopped", "end_on_signals", "stop_on_signals"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal ended the loop or the command. Like `KeyboardInterrupt`, no handler of errors takes it for one.

    Attributes:
        signal: its number.
        again: what goes on from there, in words; ``None``: nothing was begun, the same command starts anew.
    """

    def __init__(self, signal: int, again: str | None = None) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal
        self.again = again


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

    with _handled_by(handle):
        yield stop


@contextmanager
def end_on_signals() -> Iterator[None]:
    """Make SIGINT and SIGTERM raise `Stopped` wherever the main thread is, except inside `stop_on_signals`.

    The previous handlers are restored at exit. Outside the main thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    with _handled_by(handle):
        yield


@contextmanager
def _handled_by(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
