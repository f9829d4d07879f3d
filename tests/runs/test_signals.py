"""Signals become a flag, and the handlers come back."""

from __future__ import annotations

import signal
import threading

import pytest

from msgdas.runs import Stopped, end_on_signals, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_a_flag_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stop:
        assert stop.requested is None
        signal.raise_signal(number)
        assert stop.requested == number
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_second_interrupt_is_immediate_and_a_second_term_is_not() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), stop_on_signals() as stop:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
        assert stop.requested == signal.SIGTERM
        signal.raise_signal(signal.SIGINT)
        pytest.fail("went on after the second interrupt")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_outside_the_main_thread_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with stop_on_signals() as stop:
            seen.extend((stop.requested, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None, before]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_ends_where_it_is_except_where_a_loop_finishes_its_step(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    seen: list[int | None] = []
    with pytest.raises(Stopped) as stopped, end_on_signals():
        with stop_on_signals() as stop:
            signal.raise_signal(number)
            seen.append(stop.requested)
        signal.raise_signal(number)
        pytest.fail("went on after the signal")
    assert seen == [number]
    assert stopped.value.signal == number
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_no_handler_of_errors_takes_a_stop_for_one() -> None:
    assert not issubclass(Stopped, Exception)
