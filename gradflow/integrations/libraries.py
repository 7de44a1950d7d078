"""Imports the library of a trainer, or says which one is missing or too old."""

import re
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from gradflow.errors import GradflowError


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
    if _numbers(found) < _numbers(oldest):
        raise LibraryError(
            f"{distribution} {found} is installed, which is older than {oldest}: {needed}"
        )
    return import_module(module)


def load_first_library(modules: dict[str, str], oldest: str) -> ModuleType:
    """Import one of several modules that offer the same, given with their distributions.

    It is the first that the program has imported already, else the first that is installed.

    Raises `LibraryError` if none is installed, or it is older than the version `oldest`.
    """
    loaded = [module for module in modules if module in sys.modules]
    installed = [module for module, name in modules.items() if _is_installed(name)]
    module = [*loaded, *installed, *modules][0]
    return load_library(module, modules[module], oldest)


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _numbers(text: str) -> tuple[int, ...]:
    """The release of a version, such as (2, 6, 0) of 2.6.0rc1."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()
