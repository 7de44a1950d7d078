"""Instruments: each measures one further thing in recorded steps, beside layers and parameters."""

from torch import nn

from gradflow.hooks.instruments.batches import Batches
from gradflow.hooks.instruments.gradients_before import GradientsBefore
from gradflow.hooks.instruments.instrument import Instrument
from gradflow.hooks.instruments.model_tensors import ModelTensors
from gradflow.hooks.instruments.modes import ModelMode
from gradflow.hooks.instruments.parameter_types import ParameterTypes
from gradflow.hooks.instruments.positions.instrument import GradientsByPosition
from gradflow.hooks.instruments.running_statistics import RunningStatistics
from gradflow.hooks.options import RecordingOptions

__all__ = ["instruments_of"]


def instruments_of(model: nn.Module, options: RecordingOptions) -> tuple[Instrument, ...]:
    """Return the instruments of a tracer of `model`, in the order in which they are told."""
    return (
        ModelMode(model),
        RunningStatistics(model),
        ModelTensors(model, first_step_only=options.runs_compiled),
        GradientsBefore(model),
        ParameterTypes(model),
        GradientsByPosition(model, options),
        *((Batches(model),) if options.around_spikes else ()),
    )
