"""Shows the numbers in a notebook while the model trains."""

import time
from typing import ClassVar, Literal

from gradflow.errors import ConfigurationError
from gradflow.sinks.measurements import StepValues
from gradflow.sinks.names import EPOCH_PREFIX, ROW_COLUMN, SCALARS
from gradflow.sinks.notebook.history import TOTAL
from gradflow.sinks.notebook.screen import Screen, State, screen
from gradflow.sinks.sink import Sink

# What is shown is renewed at most so often.
SECONDS_BETWEEN_RENEWALS = 0.3
_TOTAL_NORM = "step_gradient_norm"
# By quantity: what its rows are. Quantities that have one number a step have none.
_ROWS = {name: ROW_COLUMN[table] for table, names in SCALARS.items() for name in names.values()}


class Notebook(Sink):
    """A heat map by layer and time, a curve, and the worst layer; a line of text outside notebooks.

        trainer = Trainer(callbacks=[GradflowCallback("runs/a", sinks=gradflow.sinks.Notebook())])

    `gradflow.Tracer.live` shows the same. The heat map is a widget, for which anywidget must be
    installed; it appears where the run begins.

    Args:
        quantity: what the colours show, on a logarithmic scale of its magnitude: a quantity that
            each layer, parameter, or group has, such as `activation_rms`; also of some rows only,
            such as `gradient_norm/encoder.*`.
        every: whether the columns are recorded steps, or epochs.
        curve: the curve that is shown first: a name given to `end_epoch`, or `gradient norm`, that
            of all parameters together; by default a loss, as soon as there is one.

    Raises `ConfigurationError` if there is no such quantity.
    """

    kind: ClassVar[str] = "notebook"
    takes_histograms: ClassVar[bool] = False
    keeps: ClassVar[bool] = False

    def __init__(
        self,
        quantity: str = "gradient_norm",
        *,
        every: Literal["step", "epoch"] = "step",
        curve: str = "",
    ) -> None:
        if not isinstance(quantity, str) or not _ROWS.get(quantity.partition("/")[0]):
            raise ConfigurationError(
                f"quantity= is one that each layer, parameter or group has, such as gradient_norm "
                f"or activation_rms, not {quantity!r}; docs/howto/sinks.md says how they are named"
            )
        wanted = (quantity, _TOTAL_NORM, f"{EPOCH_PREFIX}*")
        super().__init__(quantities=wanted, every=every, prefix="")
        self._quantity, self._curve = quantity.partition("/")[0], curve
        self.state = self._new_state()
        self._screen: Screen | None = None
        self._renewed_at = -SECONDS_BETWEEN_RENEWALS

    @property
    def screen(self) -> Screen:
        """What it is shown on, once it is shown."""
        assert self._screen is not None
        return self._screen

    def attach(self) -> None:
        """Appear here, with nothing of a run before."""
        self.state = self._new_state()
        self._screen = screen()
        self._screen.show(self.state)

    def take(self, values: StepValues) -> bool:
        """Add the numbers of a step or an epoch."""
        state = self.state
        moment = values.epoch if self.every == "epoch" else values.step
        rows = {}
        for name, value in values.scalars.items():
            quantity, _, row = name.partition("/")
            if row:
                rows[row] = value
            elif quantity == _TOTAL_NORM:
                rows[TOTAL] = value
            else:
                state.points.add(name.removeprefix(EPOCH_PREFIX), moment, value)
        if rows:
            state.history.add(moment, values.epoch, rows)
        state.moment, state.epoch = moment, values.epoch
        return bool(values.scalars)

    def tell(self, step: int, condition: str, text: str, *, begins: bool) -> None:
        """Nothing: the notebook shows warnings by itself."""

    def flush(self) -> None:
        """Show what has come, unless the last time was just before."""
        if time.monotonic() - self._renewed_at >= SECONDS_BETWEEN_RENEWALS:
            self._renew()

    def close(self) -> None:
        """Show the rest."""
        self.state.ended = True
        self._renew()

    def _new_state(self) -> State:
        return State(self._quantity, _ROWS[self._quantity], self.every, self._curve)

    def _renew(self) -> None:
        self.screen.renew(self.state)
        self._renewed_at = time.monotonic()
