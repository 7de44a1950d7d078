"""Runs a command: an error becomes one sentence and an exit code; a bug keeps its traceback."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

from gradflow.command_line.interrupts import Terminated, ignore_termination_signals
from gradflow.command_line.lines import print_item
from gradflow.errors import CheckFailedError, ConfigurationError, GradflowError

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130
# argparse and tyro exit with 2 where the options themselves are wrong.
EXIT_USAGE, EXIT_CHECK_FAILED = 2, 3
# Errors of writing to standard output. Such errors have no file name, those of run files do.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def run_command(work: Callable[[], int | None], interrupted: Callable[[], str]) -> int:
    """Do `work` and return the exit code: its own, 0 for None, 1 for an error, 3 for a check that
    failed, 130 for Ctrl-C, 143 for SIGTERM.

    Args:
        work: the command, including the reading of its options.
        interrupted: gives the sentence to print if the command is interrupted.

    Any other error than a `GradflowError` is a bug in gradflow and is raised.
    """
    if sys.stdout is None:  # closed by the parent process
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process lives
    elif hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # the terminal may lack a character of a name
    try:
        code = work() or 0
        sys.stdout.flush()
        return code
    except GradflowError as error:
        return print_error(error)
    except BrokenPipeError:
        # The reader of the output, e.g. `head`, has closed it; the flush at exit must not fail too.
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
    """Send the rest of standard output to the null device."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_error(error: GradflowError) -> int:
    """Print `error` to standard error, and return its exit code.

    An error is one sentence; of a check that failed each finding is a line, with another one below
    on what to do.
    """
    if isinstance(error, CheckFailedError):
        told: dict[str, str] = {}
        for sentence, step in zip(error.sentences, error.next_steps, strict=True):
            name = sentence.partition(":")[0]
            first = told.setdefault(step, name)
            what = step if first == name else f"the same as for {first}"
            print_item(sys.stderr, f"failed: {sentence}", *([f"to do: {what}"] if step else ()))
        return EXIT_CHECK_FAILED
    print(f"error: {error}", file=sys.stderr)
    return EXIT_ERROR
