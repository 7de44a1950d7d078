"""Where the picture is shown: as a widget, or as a line of text."""

import shutil
import sys
import time
from collections.abc import Callable
from contextvars import Context, copy_context
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from gradflow.errors import printable
from gradflow.sinks.notebook.history import History, Points
from gradflow.sinks.notebook.worst import worst_of
from gradflow.versions import release_of

ANYWIDGET = "0.9.13"
# Lines of text that are not renewed in place are printed at most so often.
SECONDS_BETWEEN_LINES = 10.0


class State:
    """What is shown.

    Fields:
        quantity: what the colours are of.
        row: what a row is: a layer, parameter or group.
        every: whether a moment is a step or an epoch.
        curve: the curve that is chosen first, or empty.
        history, points: the numbers by row and time; the curves by name.
        moment, epoch: the last of them.
        ended: whether nothing more will come.
    """

    def __init__(self, quantity: str, row: str, every: str, curve: str) -> None:
        self.quantity = quantity
        self.row = row
        self.every = every
        self.curve = curve
        self.history = History(is_backward=quantity.startswith("gradient_"))
        self.points = Points()
        self.moment = self.epoch = 0
        self.ended = False

    def worst(self) -> tuple[str, str]:
        """The worst row and how it differs; both empty if there is none."""
        return worst_of(self.history.names, self.history.recent(), self.row)

    def line(self) -> str:
        """The state in one line."""
        if not self.history.columns:
            waiting = "waiting for the first recorded steps"
            return f"gradflow: {'no step was recorded' if self.ended else waiting}"
        when = f"epoch {self.epoch}"
        if self.every == "step":
            when = f"step {self.moment}, {when}"
        name, words = self.worst()
        known = self.history.recent().compressed()
        shown = f"{self.quantity} {known.min():.2g} to {known.max():.2g}" if len(known) else ""
        last = [f"{name} {points[-1][1]:.4g}" for name, points in self.points.by_name.items()]
        parts = [when, *last[:4], shown, name and f"worst {self.row} {name}: {words}"]
        return printable("gradflow: " + " | ".join(part for part in parts if part))


class Screen(Protocol):
    """Shows a state. `show` runs in the training's thread, the other in any."""

    def show(self, state: State) -> None:
        """Appear."""

    def renew(self, state: State) -> None:
        """Show what has changed."""


class Terminal:
    """A line of text, renewed in place in a terminal, and printed now and then elsewhere."""

    def __init__(self) -> None:
        self._file = sys.stdout
        self._in_place = self._file.isatty()
        self._printed_at = -SECONDS_BETWEEN_LINES
        self._said = ""

    def show(self, state: State) -> None:
        """Nothing is shown before there are numbers."""

    def renew(self, state: State) -> None:
        """Print the line, if it is time to."""
        line = state.line()
        if self._in_place:
            width = shutil.get_terminal_size().columns - 1
            end = "\n" if state.ended else ""
            print(f"\r\x1b[K{line[:width]}", end=end, file=self._file, flush=True)
        elif line != self._said and (
            state.ended or time.monotonic() - self._printed_at >= SECONDS_BETWEEN_LINES
        ):
            self._printed_at = time.monotonic()
            self._said = line
            print(line, file=self._file, flush=True)


class Cell:
    """A line of text below a cell, renewed in place, for notebooks without widgets."""

    def __init__(self, display: Callable[..., Any], hint: str) -> None:
        self._display = display
        self._hint = hint
        self._handle: Any = None
        self._context: Context = copy_context()

    def show(self, state: State) -> None:
        """Display the line."""
        self._handle = self._display(self._content(state), raw=True, display_id=True)
        # Which cell an output belongs to is a variable of the context in newer kernels.
        self._context = copy_context()

    def renew(self, state: State) -> None:
        """Put the new line in place of the old one."""
        self._context.run(self._handle.update, self._content(state), raw=True)

    def _content(self, state: State) -> dict[str, str]:
        hint = f"\n{self._hint}" if self._hint else ""
        return {"text/plain": state.line() + hint}


def screen() -> Screen:
    """The best that there is here: a widget in a notebook with anywidget, else text."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is None:
        return Terminal()
    if (missing := _missing_anywidget()) is None:
        from gradflow.sinks.notebook.widget import WidgetScreen  # noqa: PLC0415 - if used

        return WidgetScreen()
    display = sys.modules["IPython"].display.display
    return Cell(display, f"{missing}: pip install 'anywidget>={ANYWIDGET}' shows a picture here")


def _missing_anywidget() -> str | None:
    """What is wrong with anywidget; None if it can be used."""
    try:
        found = version("anywidget")
    except PackageNotFoundError:
        return "anywidget is not installed"
    return f"anywidget {found} is too old" if release_of(found) < release_of(ANYWIDGET) else None
