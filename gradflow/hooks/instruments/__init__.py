"""Instruments: each measures one further thing in recorded steps, beside layers and parameters."""

from torch import nn

from gradflow.hooks.instruments.batches import Batches
from gradflow.hooks.instruments.instrument import Instrument
from gradflow.hooks.options import RecordingOptions

__all__ = ["instruments_of"]


def instruments_of(model: nn.Module, options: RecordingOptions) -> tuple[Instrument, ...]:
    """Return the instruments of a tracer of `model`, in the order in which they are told."""
    return (Batches(model),) if options.around_spikes else ()
