"""Records steps of a network with gradflow's tracer and reads them back."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from torch import Tensor, nn

import gradflow
from gradflow.hooks.selection.modules import Selection


def record(
    model: nn.Module, losses: Iterable[Tensor], *tables: str, observe: Selection | None = None
) -> list[pd.DataFrame]:
    """The `tables` of a run whose steps back-propagate `losses`, without updates of the weights.

    `losses` is a generator that runs the forward passes under the tracer. The run folder is
    temporary.
    """
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "run"
        with gradflow.Tracer(model, folder, observe=observe) as tracer:
            for loss in losses:
                loss.backward()
                tracer.step()
                model.zero_grad()
        run = gradflow.open_run(folder)
        return [getattr(run, table) for table in tables]
