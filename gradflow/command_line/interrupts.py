"""Turns termination signals into an exception, so that a program can clean up before it ends."""

import math
import signal
import time
from collections.abc import Callable
from types import FrameType

# For so long further signals are ignored, so that the program can clean up.
SHUTDOWN_SECONDS = 30.0


class Terminated(KeyboardInterrupt):
    """A signal other than that of Ctrl-C asked the program to end.

    Fields:
        status: the exit status that tells a shell which signal ended the program.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


def raise_on_termination_signals() -> None:
    """From now on SIGTERM and, if it exists, SIGHUP raise `Terminated` in the main thread.

    Signals that follow soon are ignored: `timeout` sends two and schedulers repeat theirs, and a
    second exception would interrupt the clean-up.
    """
    _handle(_TerminationHandler().handle)


def ignore_termination_signals() -> None:
    """From now on those signals do nothing: the program is ending with a known exit status."""
    _handle(signal.SIG_IGN)


def _handle(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), handler)


class _TerminationHandler:
    """Raises on the first signal, and ignores repetitions for a while."""

    def __init__(self) -> None:
        self._last = -math.inf

    def handle(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        # Later signals raise again, because Python drops an exception raised in a destructor.
        if now - self._last > SHUTDOWN_SECONDS:
            self._last = now
            raise Terminated(number)
