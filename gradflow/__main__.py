"""The command `gradflow`, also `python -m gradflow`: the other commands by short names."""

import difflib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from gradflow import __version__
from gradflow.command_line.exit_codes import EXIT_USAGE
from gradflow.command_line.packages import leave_working_folder
from gradflow.errors import printable


@dataclass(frozen=True)
class Command:
    """A command.

    Fields:
        module: the module whose `main` is called with the arguments.
        does: what it does, in a line.
        takes_name: whether `main` takes `prog`, its name in help texts.
    """

    module: str
    does: str
    takes_name: bool = True


COMMANDS = {
    "train": Command(
        "gradflow.train_and_trace", "train networks on images, record their gradients"
    ),
    "report": Command("gradflow.report", "explain recorded runs: write HTML and PDF, or compare"),
    "probe": Command("gradflow.probe", "measure more on the saved weights of a finished run"),
    "check": Command(
        "gradflow.findings.command", "fail if a run is unhealthy, or its files damaged"
    ),
    "export": Command("gradflow.export", "send what was recorded to other tools", False),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` name with the rest of them; return its exit code.

    Without arguments, or if there is no such command, the exit code is 2.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given[0] if given else ""
    if name in ("-h", "--help", "help"):
        print(_help())
        return 0
    if name in ("-V", "--version"):
        print(f"gradflow {__version__}")
        return 0
    if not name:
        print(_help(), file=sys.stderr)
        return EXIT_USAGE
    if name not in _available():
        print(_unknown(name), file=sys.stderr)
        return EXIT_USAGE
    command = COMMANDS[name]
    named = {"prog": f"gradflow {name}"} if command.takes_name else {}
    code: int = import_module(command.module).main(given[1:], **named)
    return code


def _available() -> dict[str, Command]:
    return {name: one for name, one in COMMANDS.items() if find_spec(one.module) is not None}


def _help() -> str:
    lines = [f"  {name:8} {one.does}" for name, one in _available().items()]
    return "\n".join(
        [
            "usage: gradflow COMMAND [OPTIONS]",
            "",
            "Record, explain and show how gradients flow through PyTorch networks.",
            "",
            *lines,
            "",
            "`gradflow COMMAND --help` lists the options of a command.",
        ]
    )


def _unknown(name: str) -> str:
    known = list(_available())
    if name in COMMANDS:
        return f"error: this gradflow has no command {name}: choose from {', '.join(known)}"
    close = difflib.get_close_matches(name, known, 1)
    meant = f"did you mean {close[0]}? The commands are" if close else "choose from"
    return f"error: there is no command {printable(name)[:80]!r}: {meant} {', '.join(known)}"


if __name__ == "__main__":
    leave_working_folder()
    sys.exit(main())
