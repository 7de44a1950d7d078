"""The run folder: its `format`, its `writing`, its `reading`, and its checks (`integrity`)."""

from typing import TYPE_CHECKING

from gradflow.lazy_names import lazy_names

if TYPE_CHECKING:
    from gradflow.runs.reading.run import Experiment, Run, open_experiment, open_run

_HOME = {
    "Experiment": "gradflow.runs.reading.run",
    "Run": "gradflow.runs.reading.run",
    "open_experiment": "gradflow.runs.reading.run",
    "open_run": "gradflow.runs.reading.run",
}

__all__ = ["Experiment", "Run", "open_experiment", "open_run"]

__getattr__ = lazy_names(__name__, _HOME)
