"""Makes sure that the packages `analyses` and `reports` that are found are gradflow's own."""

import sys
from importlib.util import find_spec
from pathlib import Path

from gradflow.errors import ConfigurationError

_HOME = Path(__file__).resolve().parents[2]


def check_packages() -> None:
    """Make sure that `analyses` and `reports` are gradflow's own, without importing them.

    Raises `ConfigurationError`, naming both folders, where another package is found first.
    """
    for name in ("analyses", "reports"):
        place = _place_of(name)
        if place != _HOME / name:
            raise ConfigurationError(
                f"the package {name!r} was found in {place or 'no folder'}, but gradflow's own is "
                f"in {_HOME / name}: run the command from another folder, or rename the other one"
            )


def leave_working_folder() -> None:
    """Take the working folder off the path, on which `python -m` puts it first.

    A package called `analyses` or `reports` there would be found in place of gradflow's own.
    """
    if sys.path and Path(sys.path[0] or ".").resolve() == Path.cwd().resolve() != _HOME:
        del sys.path[0]


def _place_of(name: str) -> Path | None:
    """The folder of the package, or the file of the module, that `import` would load."""
    spec = find_spec(name)
    places = [*(spec.submodule_search_locations or ()), spec.origin] if spec else []
    return next((Path(place).resolve() for place in places if place), None)
