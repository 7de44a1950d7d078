"""Probes: what a copy of a network, or the network with one thing changed, tells about gradients.

For any model, as functions that return a pandas data frame:

    table = gradflow.probes.paths(model, images, labels)  # gradient by the number of branches
    table = gradflow.probes.lesions(model, images, labels)  # one branch deleted after the other
    table = gradflow.probes.scaled_skips(model, images, labels)  # all skips made weaker
    table = gradflow.probes.shattering(model, images[0], images[1])  # along a line

Each runs the model and leaves it as it is; residual additions are found as the tracer finds them.

For `python -m gradflow.train_and_trace --probes`: `find_probes` looks probes up by name, and
`run_probes` runs them on a `Subject`: a network and images. A `Probe` says what it measures and at
which epochs; see `docs/reference/probes.md`.
"""

from typing import TYPE_CHECKING

from gradflow.lazy_names import lazy_names

if TYPE_CHECKING:
    from gradflow.probes.any_model.lesions import lesions
    from gradflow.probes.any_model.line import shattering
    from gradflow.probes.any_model.paths import paths
    from gradflow.probes.any_model.skip_scales import scaled_skips
    from gradflow.probes.execution import run_probes
    from gradflow.probes.probe import NotMeasurableError, Probe, Subject, When
    from gradflow.probes.registry import PROBE_NAMES, find_probes

_HOME = {
    "NotMeasurableError": "gradflow.probes.probe",
    "Probe": "gradflow.probes.probe",
    "Subject": "gradflow.probes.probe",
    "When": "gradflow.probes.probe",
    "PROBE_NAMES": "gradflow.probes.registry",
    "find_probes": "gradflow.probes.registry",
    "lesions": "gradflow.probes.any_model.lesions",
    "paths": "gradflow.probes.any_model.paths",
    "run_probes": "gradflow.probes.execution",
    "scaled_skips": "gradflow.probes.any_model.skip_scales",
    "shattering": "gradflow.probes.any_model.line",
}

__all__ = [
    "PROBE_NAMES",
    "NotMeasurableError",
    "Probe",
    "Subject",
    "When",
    "find_probes",
    "lesions",
    "paths",
    "run_probes",
    "scaled_skips",
    "shattering",
]

__getattr__ = lazy_names(__name__, _HOME)
