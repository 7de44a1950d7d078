"""gradflow records how gradients flow through a PyTorch model, and explains what it recorded.

`Tracer` attaches to a model and writes a run folder; `open_run` and `open_experiment` read run
folders as pandas data frames. `analyze` answers questions about them, `report` writes the answers
as a report, and `check` raises an error if a training has a condition that it must not have.
`recalibrate` and `evaluate_both` re-estimate the batch-norm statistics of any model.
`probes` has what a model tells if one thing in it is changed, `sinks` what else the numbers can be
written to. torch is imported only when a name that needs it is used.
"""

from typing import TYPE_CHECKING

from gradflow.lazy_names import lazy_names

if TYPE_CHECKING:
    from gradflow import probes, sinks
    from gradflow.errors import CheckFailedError
    from gradflow.findings.answers import analyze
    from gradflow.findings.checks import check
    from gradflow.hooks.alerts.alert import Alert, AlertWarning
    from gradflow.hooks.instruments.batches import batch_hash
    from gradflow.hooks.selection.modules import layers
    from gradflow.hooks.selection.schedules import Budget, every, first_then_every, log_spaced
    from gradflow.hooks.tracer import Tracer
    from gradflow.recalibration.evaluation import BothStatistics, evaluate_both
    from gradflow.recalibration.in_place import recalibrate
    from gradflow.report import CallableModule
    from gradflow.runs.reading.run import Experiment, Run, open_experiment, open_run

    report: CallableModule

__version__ = "0.1.0"

_HOME = {
    "batch_hash": "gradflow.hooks.instruments.batches",
    "Alert": "gradflow.hooks.alerts.alert",
    "AlertWarning": "gradflow.hooks.alerts.alert",
    "analyze": "gradflow.findings.answers",
    "Budget": "gradflow.hooks.selection.schedules",
    "check": "gradflow.findings.checks",
    "CheckFailedError": "gradflow.errors",
    "BothStatistics": "gradflow.recalibration.evaluation",
    "evaluate_both": "gradflow.recalibration.evaluation",
    "recalibrate": "gradflow.recalibration.in_place",
    "every": "gradflow.hooks.selection.schedules",
    "first_then_every": "gradflow.hooks.selection.schedules",
    "layers": "gradflow.hooks.selection.modules",
    "log_spaced": "gradflow.hooks.selection.schedules",
    "Tracer": "gradflow.hooks.tracer",
    "Experiment": "gradflow.runs.reading.run",
    "Run": "gradflow.runs.reading.run",
    "open_experiment": "gradflow.runs.reading.run",
    "open_run": "gradflow.runs.reading.run",
    "probes": "gradflow.probes",
    "report": "gradflow.report",
    "sinks": "gradflow.sinks",
}

__all__ = [
    "Alert",
    "AlertWarning",
    "BothStatistics",
    "Budget",
    "CheckFailedError",
    "Experiment",
    "Run",
    "Tracer",
    "__version__",
    "analyze",
    "batch_hash",
    "check",
    "evaluate_both",
    "every",
    "first_then_every",
    "layers",
    "log_spaced",
    "open_experiment",
    "open_run",
    "probes",
    "recalibrate",
    "report",
    "sinks",
]


__getattr__ = lazy_names(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted(__all__)
