"""What the page needs to let a reader look around in the recorded values."""

from gradflow.runs.reader import Experiment
from reports.parts import ExplorerPart


def explorer_of(experiment: Experiment) -> ExplorerPart | None:
    """The charts and data of the explorer; None where no layer was recorded."""
    return None
