"""Builds the explorer ahead of the place where it is shown."""

from functools import partial

from analyses.showing.working_ahead import WorkAhead
from gradflow.runs.reading.run import Experiment
from reports.elements import ExplorerElement
from reports.explorer.builder import build_explorer, is_at_hand


class ExplorerAhead:
    """Builds the explorer of `experiment` among the pieces of work of `ahead`."""

    def __init__(self, experiment: Experiment, ahead: WorkAhead) -> None:
        self._experiment = experiment
        self._ahead = ahead
        self._piece = partial(build_explorer, experiment)
        self._added = False

    def prepare(self) -> None:
        """Build it as soon as a process is free, if its tables are in memory.

        Otherwise each process would read them for itself.
        """
        if not self._added and is_at_hand(self._experiment):
            self._added = True
            self._ahead.add([self._piece])

    def element(self) -> ExplorerElement | None:
        """The explorer; None if no layer was recorded.

        Raises `RunError` if a table of the run is damaged.
        """
        return self._ahead.result(self._piece)
