"""What the commands share: an error becomes one sentence and an exit code, a defect a traceback."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

from gradflow.command_line.interrupts import Terminated, ignore_termination_signals
from gradflow.errors import ConfigurationError, GradflowError

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130
# What writing to a file or terminal as standard output may raise; files of a run are named.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def run_command(work: Callable[[], int | None], interrupted: Callable[[], str]) -> int:
    """Do `work` and return the exit code: its own, 0 for None, 1 for an error, 130 for Ctrl-C,
    143 for SIGTERM.

    Args:
        work: what the command does, its options read included.
        interrupted: the sentence for whoever broke it off, asked for only then.

    Whatever is not a `GradflowError` is a defect of gradflow and passes through.
    """
    if sys.stdout is None:  # closed by who started it
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process lives
    elif hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a name may hold what the terminal's letters lack
    try:
        code = work() or 0
        sys.stdout.flush()
        return code
    except GradflowError as error:
        return print_error(error)
    except BrokenPipeError:
        # Who reads the output, `head` say, has seen enough; the flush at exit must not fail again.
        _discard_output()
        return 0
    except OSError as error:
        if error.filename is not None or error.errno not in _UNWRITABLE:
            raise
        _discard_output()
        return print_error(ConfigurationError(f"the output cannot be written: {error.strerror}"))
    except Terminated as request:
        ignore_termination_signals()
        print(interrupted(), file=sys.stderr)
        return request.status
    except KeyboardInterrupt:
        print(interrupted(), file=sys.stderr)
        return EXIT_INTERRUPTED


def _discard_output() -> None:
    """What was not written goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_error(error: GradflowError) -> int:
    """Say what is wrong, in one sentence on standard error; the exit code of an error."""
    print(f"error: {error}", file=sys.stderr)
    return EXIT_ERROR
