"""The picture as a widget: anywidget takes the numbers to `view.js`, which draws them.

All numbers are traits of the widget, which is why a page that is loaded again, or a second view,
has all of them, and why nothing is lost that is sent before the page is ready. The columns are
spread over traits of sixteen: only those that have changed are sent.
"""

from contextvars import Context, copy_context
from functools import cache
from importlib.resources import files
from math import isfinite
from typing import Any

import numpy as np

from gradflow.sinks.libraries import load
from gradflow.sinks.notebook.history import MOST_COLUMNS, History
from gradflow.sinks.notebook.screen import State

COLUMNS_IN_BLOCK = 16
BLOCKS = MOST_COLUMNS // COLUMNS_IN_BLOCK


class WidgetScreen:
    """Shows the widget below the cell, and keeps it up to date.

    Fields:
        widget: the widget, once it is shown.
    """

    def __init__(self) -> None:
        self.widget: Any = None
        self._context: Context = copy_context()
        self._merged = -1
        self._sent = 0

    def show(self, state: State) -> None:
        """Display the widget."""
        self.widget = _widget_class()(
            quantity=state.quantity, row=state.row, every=state.every, chosen=state.curve
        )
        load("IPython.display").display(self.widget)
        # Which cell a message belongs to is a variable of the context in newer kernels.
        self._context = copy_context()

    def renew(self, state: State) -> None:
        """Send the numbers that have changed."""
        self._context.run(self._send, state)

    def _send(self, state: State) -> None:
        history = state.history
        name, words = state.worst()
        with self.widget.hold_sync():
            self.widget.names = list(history.names)
            self.widget.columns = [list(one) for one in history.columns]
            for place in self._changed_blocks(history):
                start = place * COLUMNS_IN_BLOCK
                block = encoded(
                    history.means(start, min(start + COLUMNS_IN_BLOCK, len(history.columns)))
                )
                setattr(self.widget, f"block{place}", block)
            self.widget.curves = {
                name: [[x, y if isfinite(y) else None] for x, y in points]
                for name, points in state.points.by_name.items()
            }
            self.widget.worst = [name, words]
            self.widget.last = [state.moment, state.epoch, int(state.ended)]
            self.widget.revision += 1

    def _changed_blocks(self, history: History) -> range:
        """The blocks that are not as they were sent."""
        anew = history.merged != self._merged
        first = 0 if anew else max(0, self._sent - 1) // COLUMNS_IN_BLOCK
        self._merged, self._sent = history.merged, len(history.columns)
        last = -(-len(history.columns) // COLUMNS_IN_BLOCK)
        return range(first, BLOCKS if anew else last)


def encoded(means: Any) -> bytes:
    """Magnitudes, shape [columns, rows], as float32 of their decimal logarithms.

    -inf is zero, inf is nan or infinite, and nan is missing.
    """
    values = np.ma.masked_array(means)
    missing = np.ma.getmaskarray(values)
    numbers = values.filled(1)
    with np.errstate(divide="ignore"):
        logs = np.log10(np.where(np.isfinite(numbers), numbers, np.inf))
    result: bytes = np.where(missing, np.nan, logs).astype("<f4").tobytes()
    return result


@cache
def _widget_class() -> Any:
    """The class of the widget; a function, since anywidget is imported when it is needed."""
    traitlets = load("traitlets")
    here = files("gradflow.sinks.notebook")

    def synced(kind: Any, *default: Any) -> Any:
        return kind(*default).tag(sync=True)

    traits = {
        "_esm": (here / "view.js").read_text(encoding="utf-8"),
        "_css": (here / "view.css").read_text(encoding="utf-8"),
        "__doc__": "The numbers of a training, drawn by view.js.",
        "__module__": __name__,
        "__repr__": lambda one: (
            f"gradflow: {one.quantity} by layer and {one.every}, drawn in notebooks"
        ),
        "quantity": synced(traitlets.Unicode),
        "row": synced(traitlets.Unicode),
        "every": synced(traitlets.Unicode),
        "chosen": synced(traitlets.Unicode),
        "names": synced(traitlets.List),
        "columns": synced(traitlets.List),
        "curves": synced(traitlets.Dict),
        "worst": synced(traitlets.List),
        "last": synced(traitlets.List),
        "revision": synced(traitlets.Int, 0),
        **{f"block{place}": synced(traitlets.Bytes, b"") for place in range(BLOCKS)},
    }
    return type("GradflowView", (load("anywidget").AnyWidget,), traits)
