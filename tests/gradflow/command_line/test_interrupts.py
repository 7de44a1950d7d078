"""A termination signal raises an exception, but only once if it is repeated."""

import signal
import time

import pytest

from gradflow.command_line.interrupts import (
    SHUTDOWN_SECONDS,
    Terminated,
    raise_on_termination_signals,
)


@pytest.fixture(autouse=True)
def _handlers_as_they_were():
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_raises_what_the_exit_status_is_told_by(number):
    raise_on_termination_signals()
    with pytest.raises(Terminated) as raised:
        signal.raise_signal(number)
    assert raised.value.status == 128 + number
    assert isinstance(raised.value, KeyboardInterrupt)


def test_the_same_request_sent_again_does_not_break_off_the_end_it_began():
    raise_on_termination_signals()
    with pytest.raises(Terminated):
        signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGHUP)


def test_a_request_long_after_counts_again(monkeypatch):
    raise_on_termination_signals()
    with pytest.raises(Terminated):
        signal.raise_signal(signal.SIGTERM)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + SHUTDOWN_SECONDS + 1)
    with pytest.raises(Terminated):
        signal.raise_signal(signal.SIGTERM)
