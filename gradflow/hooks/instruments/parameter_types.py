"""The type and the size of each trained parameter: what changes of it are too small to be held."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gradflow.hooks.instruments.instrument import Instrument
from gradflow.hooks.recording.records import StepRecord
from gradflow.hooks.updates.known import is_trained
from gradflow.hooks.wrappers import named_parameters
from gradflow.runs.format.model_tables import PARAMETER_TYPES


class ParameterTypes(Instrument):
    """Writes the table once, and again when parameters have changed.

    Args:
        model: the whole model.
    """

    key = "parameter_types"
    several_processes = True

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._written: dict[str, tuple[str, int]] = {}
        self._now: dict[str, tuple[str, int]] | None = None
        self._resolution: dict[str, float] = {}

    def end_step(self, record: StepRecord) -> None:
        """Look at the parameters, once an epoch: an epoch ends with those of its last steps."""
        if self._now is None:
            self._look()

    def model_has_changed(self) -> None:
        """Look again."""
        self._now = None

    def end_epoch(self) -> Mapping[str, Mapping[str, Any]]:
        """Return all rows if any is new."""
        now, self._now = self._now, None
        if not now or now == self._written:
            return {}
        self._written = now
        kinds, sizes = zip(*now.values(), strict=True)
        return {
            PARAMETER_TYPES.name: {
                "parameter": list(now),
                "type": list(kinds),
                "resolution": [self._resolution[kind] for kind in kinds],
                "elements": list(sizes),
            }
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what was written."""
        return {"written": {name: list(entry) for name, entry in self._written.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do not write again what was."""
        written = state.get("written", {})
        self._written = {name: (kind, size) for name, (kind, size) in written.items()}

    def _look(self) -> None:
        self._now = {}
        for name, parameter in named_parameters(self._model):
            if is_trained(parameter):
                kind = str(parameter.dtype).removeprefix("torch.")
                self._resolution[kind] = torch.finfo(parameter.dtype).eps
                self._now[name] = kind, parameter.numel()
