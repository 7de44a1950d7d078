"""Other tools that diagnose trainings, to be run on the trainings of this benchmark."""

from collections.abc import Callable

from diagnosers.rules import Debugger
from diagnosers.tools import CouldNotRunError, Ormas, TorchAudit, TorchMortem, TrainScope
from diagnosers.watcher import Complaint, Watcher, watched

__all__ = ["DIAGNOSERS", "Complaint", "CouldNotRunError", "Watcher", "watched"]

DIAGNOSERS: dict[str, Callable[[], Watcher]] = {
    one.name: one for one in (TorchAudit, TorchMortem, TrainScope, Ormas, Debugger)
}
