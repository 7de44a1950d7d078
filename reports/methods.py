"""How the experiment was made, as the paragraphs of a methods section."""

from gradflow.runs.reader import Experiment
from reports.parts import MethodPart
from reports.setting import trained_line


def methods_of(experiment: Experiment) -> tuple[MethodPart, ...]:
    """How the networks were trained, on what, and what was recorded at what cost."""
    return (MethodPart("Training", trained_line(experiment)),)
