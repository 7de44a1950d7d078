"""The list of all probes, in the order in which they run, and how to find them by name."""

from importlib import import_module

from gradflow.errors import ConfigurationError
from gradflow.probes.probe import Probe

# By probe name, its module below `gradflow.probes`. A probe is imported only when it is requested,
# because some need a library that training does not.
_MODULES = {
    "gradient_coherence": "gradients.coherence",
    "shattering": "gradients.shattering",
    "path_lengths": "skips.path_lengths",
    "lesions": "skips.lesions",
    "skip_scaling": "skips.scaling",
    "noise_scale": "gradients.noise_scale",
    "attribution": "attribution.measure",
    "loss_slice": "loss.slices",
    "sharpness": "loss.sharpness",
}
PROBE_NAMES = tuple(_MODULES)


def find_probes(names: tuple[str, ...]) -> tuple[Probe, ...]:
    """The probes called `names`, in the order in which they run.

    Raises `ConfigurationError` for an unknown name, or if a probe's library is missing.
    """
    for name in names:
        if name not in PROBE_NAMES:
            existing = ", ".join(PROBE_NAMES)
            raise ConfigurationError(f"there is no probe called {name!r}; there are {existing}")
    return tuple(_load(name) for name in PROBE_NAMES if name in names)


def _load(name: str) -> Probe:
    try:
        probe: Probe = import_module(f"gradflow.probes.{_MODULES[name]}").PROBE
    except ModuleNotFoundError as error:
        library = (error.name or "gradflow").partition(".")[0]
        if library == "gradflow":
            raise
        raise ConfigurationError(
            f"the probe {name} needs {library}, which is not installed: install it, or name the "
            f"probes to run, of {', '.join(one for one in PROBE_NAMES if one != name)}"
        ) from error
    return probe
