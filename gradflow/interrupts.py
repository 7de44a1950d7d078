"""Turns the signals that ask a program to end into an exception, so that it ends in good order."""

import signal
from types import FrameType


class Terminated(KeyboardInterrupt):
    """The program was asked to end by a signal other than Ctrl-C's.

    Fields:
        status: the exit status by which a shell tells that the signal ended the program.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


def end_in_good_order() -> None:
    """From now on SIGTERM and, where it exists, SIGHUP raise `Terminated` in the main thread."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _raise)


def _raise(number: int, _: FrameType | None) -> None:
    raise Terminated(number)
