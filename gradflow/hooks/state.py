"""What a tracer must know to go on with a run as if it had never been interrupted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradflow.hooks.layers import LayerTable
from gradflow.hooks.observation.junction_observer import JunctionObserver
from gradflow.hooks.parameters import ParameterRecorder
from gradflow.hooks.schedules import Budget, Schedule


@dataclass(frozen=True)
class TracerState:
    """Everything of a tracer that outlives a step: one `state_dict` for all of it."""

    layers: LayerTable
    junctions: JunctionObserver
    parameters: ParameterRecorder
    schedule: Schedule

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and names only, which `torch.load` reads with `weights_only=True`."""
        state = {name: getattr(self, name).state_dict() for name in _ALWAYS}
        if isinstance(self.schedule, Budget):
            state["budget"] = self.schedule.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember what `state_dict` gave."""
        for name in _ALWAYS:
            getattr(self, name).load_state_dict(state[name])
        # A run may go on with another schedule than it began with.
        if isinstance(self.schedule, Budget) and "budget" in state:
            self.schedule.load_state_dict(state["budget"])


def resume_point(state: Mapping[str, Any]) -> tuple[int, int]:
    """The epoch and step that `state`, a tracer's, goes on from; the first where it is empty.

    Raises `ValueError` where it is none: rows of the run from there on are removed.
    """
    if not isinstance(state, Mapping):
        raise ValueError("it is no state of a tracer")
    place = state.get("epoch", 1), state.get("step", 0)
    for value, first in zip(place, (1, 0), strict=True):
        if type(value) is not int or not first <= value <= _LAST:
            raise ValueError("its epoch and step are none")
    return place


_LAST = 2**31 - 1  # what the run's tables have room for
_ALWAYS = ("layers", "junctions", "parameters")
