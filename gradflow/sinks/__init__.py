"""Where the numbers go besides the run folder: TensorBoard, W&B, MLflow, Trackio, Aim and others.

with gradflow.Tracer(model, "runs/mine", sinks=[gradflow.sinks.TensorBoard()]) as tracer:
    ...

`docs/howto/sinks.md` has the names. Each sink imports its library when a run begins, not before.
"""

from typing import TYPE_CHECKING

from gradflow.lazy_names import lazy_names

if TYPE_CHECKING:
    from gradflow.sinks.aim import Aim
    from gradflow.sinks.csv import CSV
    from gradflow.sinks.given import Function, Lightning
    from gradflow.sinks.mlflow import MLflow
    from gradflow.sinks.notebook.sink import Notebook
    from gradflow.sinks.sink import Sink
    from gradflow.sinks.tensorboard import TensorBoard
    from gradflow.sinks.trackio import Trackio
    from gradflow.sinks.wandb import WandB

_HOME = {
    "Aim": "gradflow.sinks.aim",
    "CSV": "gradflow.sinks.csv",
    "Function": "gradflow.sinks.given",
    "Lightning": "gradflow.sinks.given",
    "MLflow": "gradflow.sinks.mlflow",
    "Notebook": "gradflow.sinks.notebook.sink",
    "Sink": "gradflow.sinks.sink",
    "TensorBoard": "gradflow.sinks.tensorboard",
    "Trackio": "gradflow.sinks.trackio",
    "WandB": "gradflow.sinks.wandb",
}

__all__ = [
    "CSV",
    "Aim",
    "Function",
    "Lightning",
    "MLflow",
    "Notebook",
    "Sink",
    "TensorBoard",
    "Trackio",
    "WandB",
]

__getattr__ = lazy_names(__name__, _HOME)
