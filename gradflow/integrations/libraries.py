"""Imports the library of a trainer, or says which one is missing or too old."""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from gradflow.errors import GradflowError
from gradflow.versions import release_of


class LibraryError(GradflowError, ImportError):
    """The library of a trainer is missing, or older than what works with it."""


def load_library(module: str, distribution: str, oldest: str) -> ModuleType:
    """Import `module` of the library that is installed as `distribution`.

    Raises `LibraryError` if it is not installed, or older than the version `oldest`.
    """
    needed = f"pip install '{distribution}>={oldest}'"
    try:
        found = version(distribution)
    except PackageNotFoundError:
        raise LibraryError(f"{distribution} is not installed: {needed}") from None
    if release_of(found) < release_of(oldest):
        raise LibraryError(
            f"{distribution} {found} is installed, which is older than {oldest}: {needed}"
        )
    return import_module(module)


def load_libraries(modules: Mapping[str, str], oldest: str) -> list[ModuleType]:
    """Import those of several modules that are installed, given with their distributions.

    Raises the `LibraryError` of the first if none is installed, or all are older than `oldest`.
    """
    found, errors = [], []
    for module, distribution in modules.items():
        try:
            found.append(load_library(module, distribution, oldest))
        except ImportError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return found
