"""The state that a tracer needs to continue a run as if it had not been interrupted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradflow.hooks.layers import LayerTable
from gradflow.hooks.observation.junctions.observer import JunctionObserver
from gradflow.hooks.selection.schedules import Budget, Schedule
from gradflow.hooks.updates.parameters import ParameterRecorder


@dataclass(frozen=True)
class TracerState:
    """All parts of a tracer that keep data between steps, with one `state_dict` for all of them."""

    layers: LayerTable
    junctions: JunctionObserver
    parameters: ParameterRecorder
    schedule: Schedule

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors, numbers and names, which `weights_only=True` can load."""
        state = {name: getattr(self, name).state_dict() for name in _STATEFUL_PARTS}
        if isinstance(self.schedule, Budget):
            state["budget"] = self.schedule.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name in _STATEFUL_PARTS:
            getattr(self, name).load_state_dict(state[name])
        # A run may continue with another schedule.
        if isinstance(self.schedule, Budget) and "budget" in state:
            self.schedule.load_state_dict(state["budget"])


def resume_point(state: Mapping[str, Any]) -> tuple[int, int]:
    """Return the epoch and step from which a tracer with `state` continues; 1, 0 if it is empty.

    Raises `ValueError` if `state` is not a tracer's. This check matters: the rows of the run from
    this step on are removed.
    """
    if not isinstance(state, Mapping):
        raise ValueError("it is not the state of a tracer")
    place = state.get("epoch", 1), state.get("step", 0)
    for value, first in zip(place, (1, 0), strict=True):
        if type(value) is not int or not first <= value <= _MAX_STEP:
            raise ValueError("its epoch or step is not a valid number")
    return place


_MAX_STEP = 2**31 - 1  # the largest step that the run's tables can hold
_STATEFUL_PARTS = ("layers", "junctions", "parameters")
