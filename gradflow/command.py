"""What the commands share: an error becomes one sentence and an exit code, a defect a traceback."""

import os
import sys
from collections.abc import Callable

from gradflow.errors import GradflowError
from gradflow.interrupts import Terminated, ignore_requests

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130


def run_command(work: Callable[[], int | None], interrupted: Callable[[], str]) -> int:
    """Do `work` and return the exit code: its own, 0 for None, 1 for an error, 130 for Ctrl-C,
    143 for SIGTERM.

    Args:
        work: what the command does, its options read included.
        interrupted: the sentence for whoever broke it off, asked for only then.

    Whatever is not a `GradflowError` is a defect of gradflow and passes through.
    """
    try:
        return work() or 0
    except GradflowError as error:
        return complain(error)
    except BrokenPipeError:
        # Who reads the output, `head` say, has seen enough; the flush at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Terminated as request:
        ignore_requests()
        print(interrupted(), file=sys.stderr)
        return request.status
    except KeyboardInterrupt:
        print(interrupted(), file=sys.stderr)
        return EXIT_INTERRUPTED


def complain(error: GradflowError) -> int:
    """Say what is wrong, in one sentence on standard error; the exit code of an error."""
    print(f"error: {error}", file=sys.stderr)
    return EXIT_ERROR
