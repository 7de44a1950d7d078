"""What the model took and returned in the recorded steps, as the conditions of health read it."""

import numpy as np
import pandas as pd

from analyses.reading.once import once_per_run
from gradflow.runs.format.model_tables import INPUT, OUTPUT
from gradflow.runs.reading.run import Run

# A softmax of float32 sums to 1 within 1e-6, one of bfloat16 within its 8 bits.
_ROUNDING = 0.02


@once_per_run
def inputs_of(run: Run) -> pd.DataFrame:
    """The rows of the table `model_tensors` that are of inputs."""
    table = run.table("model_tensors")
    return table[table["direction"] == INPUT]


@once_per_run
def outputs_of(run: Run) -> pd.DataFrame:
    """The rows of outputs with samples: those of floats, of one first axis with the first input."""
    table = run.table("model_tensors")
    outputs = table[
        (table["direction"] == OUTPUT) & table["type"].astype(str).str.contains("float")
    ]
    length = first_axis(outputs)
    of_input = inputs_of(run)
    if len(of_input):
        lengths = first_axis(of_input).groupby(of_input["step"]).first()
        return outputs[length == outputs["step"].map(lengths)]
    return outputs


def first_axis(rows: pd.DataFrame) -> pd.Series:
    """The length of the first axis of each tensor."""
    sizes = rows["shape"].astype(str).str.extract("^([0-9]+)", expand=False)
    return pd.to_numeric(sizes, errors="coerce")


def ends_in_softmax(run: Run) -> bool:
    """Whether each first output of the model sums to 1 over its classes, as after a softmax."""
    outputs = outputs_of(run)
    if not len(outputs):
        return False
    first = outputs.groupby("step").first()
    distance = first["distance_from_probabilities"].to_numpy(dtype=float)
    return bool(np.isfinite(distance).all() and (distance < _ROUNDING).all())
