"""Turns the signals that ask a program to end into an exception, so that it ends in good order."""

import math
import signal
import time
from collections.abc import Callable
from types import FrameType

# How long the end in good order is left alone by further requests.
SHUTDOWN_SECONDS = 30.0


class Terminated(KeyboardInterrupt):
    """The program was asked to end by a signal other than Ctrl-C's.

    Fields:
        status: the exit status by which a shell tells that the signal ended the program.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


def raise_on_termination_signals() -> None:
    """From now on SIGTERM and, where it exists, SIGHUP raise `Terminated` in the main thread.

    Those that come soon after do not: `timeout` sends a process two, and schedulers repeat theirs,
    which would break off the end that the first has begun.
    """
    _handle(_TerminationHandler().handle)


def ignore_termination_signals() -> None:
    """From now on those signals do nothing: the end has come, and its exit status is known."""
    _handle(signal.SIG_IGN)


def _handle(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), handler)


class _TerminationHandler:
    """The request to end, however often it is sent."""

    def __init__(self) -> None:
        self._last = -math.inf

    def handle(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        # Later ones count again: Python drops an exception that is raised in a destructor.
        if now - self._last > SHUTDOWN_SECONDS:
            self._last = now
            raise Terminated(number)
