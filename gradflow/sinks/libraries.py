"""Finds the libraries of sinks, without importing them before they are used."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from gradflow.errors import ConfigurationError
from gradflow.versions import release_of


def require(library: str, needed: str, *distributions: str) -> None:
    """Raise `ConfigurationError` if `library` is missing or older than `needed`, e.g. "2.18".

    `distributions` are the packages that bring it, the usual one first; by default its own name.
    """
    names = distributions or (library,)
    install = f"pip install '{names[0]}>={needed}'"
    if find_spec(library) is None:
        raise ConfigurationError(
            f"{library} is not installed, and {needed} or newer is needed: {install}"
        )
    for name in names:
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        if release_of(found) < release_of(needed):
            raise ConfigurationError(
                f"{library} {found} is installed, and {needed} or newer is needed: {install}"
            )
        return


def load(module: str) -> Any:
    """The module, imported now."""
    return import_module(module)
