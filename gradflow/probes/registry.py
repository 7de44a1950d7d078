"""Which probes there are, in the order in which they run."""

from importlib import import_module

from gradflow.errors import ConfigurationError
from gradflow.probes.probe import Probe

PROBE_NAMES = (
    "gradient_coherence",
    "shattering",
    "path_lengths",
    "lesions",
    "shortcut_scaling",
    "noise_scale",
    "attribution",
    "loss_slice",
    "sharpness",
)


def find_probes(names: tuple[str, ...]) -> tuple[Probe, ...]:
    """The probes called `names`, in the order in which they run.

    Raises `ConfigurationError` for a name that no probe has.
    """
    for name in names:
        if name not in PROBE_NAMES:
            existing = ", ".join(PROBE_NAMES)
            raise ConfigurationError(f"there is no probe called {name!r}; there are {existing}")
    return tuple(
        import_module(f"gradflow.probes.{name}").PROBE for name in PROBE_NAMES if name in names
    )
