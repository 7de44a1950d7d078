"""The options of a tracer that say what is recorded, and when; `Tracer` says what each means."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from gradflow.errors import TracingError
from gradflow.hooks.selection.modules import Selection
from gradflow.hooks.selection.schedules import Budget, Schedule, require_positive_int


@dataclass(frozen=True)
class RecordingOptions:
    """What is recorded of a training, and when.

    Raises `TracingError` for a value that an option has not, and for two that exclude each other.
    """

    schedule: int | Schedule
    histograms: bool | int | Schedule
    observe: Selection | None
    groups: Mapping[str, Selection] | None
    scaler: torch.amp.GradScaler | None
    passes: Literal["backward", "all"]
    modes: Literal["training", "all"]
    outputs: Literal["first", "all"]
    compiled: Literal["uncompiled", "in-graph"]
    parameters_every: int
    stop_on_nonfinite: bool
    updates_every: int = 1
    terms: int | Schedule = 20
    around_spikes: int | None = None
    objective: Literal["fixed", "moving"] = "fixed"

    def __post_init__(self) -> None:
        _require_one_of("passes", self.passes, ("backward", "all"))
        _require_one_of("modes", self.modes, ("training", "all"))
        _require_one_of("outputs", self.outputs, ("first", "all"))
        _require_one_of("compiled", self.compiled, ("uncompiled", "in-graph"))
        _require_one_of("objective", self.objective, ("fixed", "moving"))
        require_positive_int("parameters_every", self.parameters_every)
        require_positive_int("updates_every", self.updates_every)
        if self.updates_every > 1 or self.parameters_every > 1:
            self._require_a_turn_for_each()
        if not callable(self.terms):
            require_positive_int("terms", self.terms)
        if self.around_spikes is not None:
            require_positive_int("around_spikes", self.around_spikes)
            if isinstance(self.schedule, Budget):
                raise TracingError(
                    "around_spikes= records every step, which costs more than a budget allows: "
                    "give the tracer another schedule, such as schedule=16"
                )

    def _require_a_turn_for_each(self) -> None:
        if self.parameters_every > 1 and self.updates_every > 1:
            raise TracingError(
                f"parameters_every={self.parameters_every} measures updates in turns already: "
                f"leave out updates_every={self.updates_every}, or parameters_every="
            )
        if self.around_spikes is not None:
            option = "updates_every" if self.updates_every > 1 else "parameters_every"
            raise TracingError(
                "with around_spikes= every step is recorded and some are written, so with "
                f"{option}={getattr(self, option)} some parameters may have no turn in those: "
                "leave out one of the two"
            )

    @property
    def runs_compiled(self) -> bool:
        """Whether recorded steps run compiled, from the second one on."""
        return self.compiled == "in-graph"

    def require_possible_with(self, processes: int) -> None:
        """Raise `TracingError` if so many processes cannot record what is asked for."""
        if self.around_spikes is not None and (self.runs_compiled or processes > 1):
            raise TracingError(
                "around_spikes= records one process alone, and no steps within a compiled graph: "
                "leave it out, or record a training on one device that runs uncompiled"
            )
        if self.runs_compiled and (self.histograms is not False or processes > 1):
            raise TracingError(
                'compiled="in-graph" counts no magnitudes, and records one process alone: leave '
                "it out to record histograms, or several processes that train together"
            )

    def description(self) -> dict[str, Any]:
        """Return the entries of `run.json` about options that change what rows there are."""
        every, reach = self.parameters_every, self.around_spikes
        return {
            **({"parameters_every": every} if every > 1 else {}),
            **({"updates_every": self.updates_every} if self.updates_every > 1 else {}),
            **({} if reach is None else {"around_spikes": reach}),
            **({} if self.objective == "fixed" else {"objective": self.objective}),
        }


def _require_one_of(option: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        words = " or ".join(f'"{one}"' for one in allowed)
        raise TracingError(f"{option}= is {words}, not {value!r}")
