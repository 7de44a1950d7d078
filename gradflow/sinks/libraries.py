"""Finds the libraries of sinks, without importing them before they are used."""

import re
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from gradflow.errors import ConfigurationError


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
        if _numbers(found) < _numbers(needed):
            raise ConfigurationError(
                f"{library} {found} is installed, and {needed} or newer is needed: {install}"
            )
        return


def load(module: str) -> Any:
    """The module, imported now."""
    return import_module(module)


def _numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: 2.18.0rc1 is (2, 18, 0)."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()
