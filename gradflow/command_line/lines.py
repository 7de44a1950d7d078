"""Lines of text: as wide as a terminal, and whole where a program or a file reads them."""

import shutil
import textwrap
from typing import TextIO

from gradflow.errors import printable

_INDENT = "    "


def print_item(stream: TextIO, text: str, *more: str) -> None:
    """Print `text` and below it, indented, each of `more`; broken at the width of a terminal."""
    for line, indent in ((text, ""), *((one, _INDENT) for one in more)):
        print(_broken(stream, indent + printable(line)), file=stream)


def _broken(stream: TextIO, line: str) -> str:
    if not stream.isatty():
        return line
    width = shutil.get_terminal_size().columns
    return textwrap.fill(
        line,
        width,
        subsequent_indent=_INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
