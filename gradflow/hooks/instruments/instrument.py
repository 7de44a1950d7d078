"""What an instrument is, and the set of them that a tracer has.

An instrument follows the steps of the tracer. In a recorded step it measures on the device and
leaves what it found in `StepRecord.further` under its key; nothing waits for the device until the
records are transferred, which is when it makes rows of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gradflow.hooks.observation.layer_calls import LayerRan
from gradflow.hooks.recording.records import Columns, StepRecord

Report = Callable[[str, str], None]


class Instrument:
    """One further measurement; a subclass overrides what it needs.

    Fields:
        key: its name: that of its entry in `StepRecord.further`, in the tracer's state and in
            messages.
        several_processes: whether it is right if several processes train the model together. If
            not, it is left out there, which is reported.
        wants_layers: whether `layer_ran` is to be called.
        belongs_to_step: whether the running backward pass is one of the step.
        ask_again: to be called for `layer_ran` to be called for all layers again.
    """

    key = ""
    several_processes = False
    wants_layers = False
    belongs_to_step: Callable[[], bool] = staticmethod(lambda: True)
    ask_again: Callable[[], None] = staticmethod(lambda: None)

    @property
    def has_work(self) -> bool:
        """Whether there is something to measure; else nobody is told that it is left out."""
        return True

    def begin_step(self, record: StepRecord | None) -> None:
        """A step begins; `record` is None if it is not recorded: then leave no hooks behind."""

    def forward_begins(self, record: StepRecord) -> None:
        """A forward pass of the whole model begins in a recorded step."""

    def layer_ran(self, ran: LayerRan) -> bool:
        """An observed layer has returned in a forward pass of a recorded step.

        Return whether to be told of it in later passes too. If not, it may be told all the same,
        and is when the model has changed.
        """
        return True

    def backward_begins(self, record: StepRecord) -> None:
        """A backward pass begins that fills the gradients of parameters, in a recorded step."""

    def end_step(self, record: StepRecord) -> None:
        """A recorded step has ended: leave what was measured in `record.further`."""

    def columns(self, records: Sequence[StepRecord]) -> Mapping[str, Columns]:
        """Return the rows of `records` by table, as columns; this may wait for the device.

        Of the table `steps`, return only the columns to add, a value a record.
        """
        return {}

    def end_epoch(self) -> Mapping[str, Mapping[str, Any]]:
        """Return rows of the epoch that ends, by table, as columns without the column `epoch`."""
        return {}

    def model_has_changed(self) -> None:
        """The model's modules or parameters are others than before."""

    def summary(self) -> Mapping[str, Any]:
        """Return entries of `run.json`, written as the run is closed."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what a tracer that continues the run needs: tensors, numbers and names."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    def detach(self) -> None:
        """Take off all hooks; the tracer ends."""


class Instruments:
    """All instruments of a tracer, told one after another.

    Args:
        instruments: of one tracer.
        processes: how many processes train the model.
    """

    def __init__(self, instruments: Iterable[Instrument], processes: int = 1) -> None:
        given = tuple(instruments)
        self._all = tuple(one for one in given if processes == 1 or one.several_processes)
        self._wanting: list[Callable[[LayerRan], bool]] = []
        left_out = [one for one in given if one not in self._all]
        self._left_out = [one.key for one in left_out if one.has_work]

    def observe(
        self, belongs_to_step: Callable[[], bool], ask_again: Callable[[], None]
    ) -> Callable[[LayerRan], bool] | None:
        """Return what is to be called for each layer that ran; None if nobody wants to know.

        It returns whether somebody wants to know of it again. `belongs_to_step` says whether the
        running backward pass is one of the step; `ask_again` has it called for all layers again.
        """
        for one in self._all:
            one.belongs_to_step = belongs_to_step
            one.ask_again = ask_again
        self._wanting = [one.layer_ran for one in self._all if one.wants_layers]
        return self._layer_ran if self._wanting else None

    def _layer_ran(self, ran: LayerRan) -> bool:
        wanted = False
        for one in self._wanting:
            wanted |= one(ran)
        return wanted

    def report_left_out(self, report: Report) -> None:
        """Say which ones measure nothing, since several processes train the model."""
        if self._left_out:
            report(
                "several processes",
                f"not recorded of several processes: {', '.join(self._left_out)}",
            )

    def begin_step(self, record: StepRecord | None) -> None:
        """A step begins; `record` is None if it is not recorded."""
        for one in self._all:
            one.begin_step(record)

    def forward_begins(self, record: StepRecord) -> None:
        """A forward pass begins in a recorded step."""
        for one in self._all:
            one.forward_begins(record)

    def backward_begins(self, record: StepRecord) -> None:
        """A backward pass begins in a recorded step."""
        for one in self._all:
            one.backward_begins(record)

    def end_step(self, record: StepRecord) -> None:
        """A recorded step has ended."""
        for one in self._all:
            one.end_step(record)

    def add_columns(self, tables: dict[str, Columns], records: Sequence[StepRecord]) -> None:
        """Add the rows of `records` to `tables`, in place."""
        for one in self._all:
            for name, columns in one.columns(records).items():
                tables[name] = {**tables.get(name, {}), **columns}

    def end_epoch(self) -> dict[str, Mapping[str, Any]]:
        """Return the rows of the epoch that ends, by table."""
        return {name: rows for one in self._all for name, rows in one.end_epoch().items()}

    def model_has_changed(self) -> None:
        """The model is another than before."""
        for one in self._all:
            one.model_has_changed()

    def summary(self) -> dict[str, Any]:
        """Return the entries of `run.json`."""
        return {name: entry for one in self._all for name, entry in one.summary().items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each by its key."""
        return {one.key: one.state_dict() for one in self._all}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; a run may continue with other instruments."""
        for one in self._all:
            one.load_state_dict(state.get(one.key, {}))

    def detach(self) -> None:
        """Take off the hooks of all."""
        for one in self._all:
            one.detach()
