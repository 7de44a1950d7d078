"""Probes: measurements that run a copy of the network again, or change one thing in the copy.

`find_probes` looks probes up by name, and `run_probes` runs them on a `Subject`: a network and
images. A `Probe` says what it measures and at which epochs; see `docs/reference/probes.md`.
"""

from typing import TYPE_CHECKING

from gradflow.lazy_names import lazy_names

if TYPE_CHECKING:
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
    "run_probes": "gradflow.probes.execution",
}

__all__ = [
    "PROBE_NAMES",
    "NotMeasurableError",
    "Probe",
    "Subject",
    "When",
    "find_probes",
    "run_probes",
]

__getattr__ = lazy_names(__name__, _HOME)
